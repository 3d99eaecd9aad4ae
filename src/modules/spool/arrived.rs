//! Room for downloads that are kept in memory while they come, as there is no folder to put them into, or
//! no room in it.
//!
//! Taken byte by byte as they come, never waited for: so a server that is slow holds what it has sent and nothing else,
//! and of those who need more than there is one is told so, instead of each waiting for the others.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::UNIT;

/// The downloads of one batch that are in memory.
#[derive(Debug)]
pub struct Arrived {
    arriving: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Arrived {
    pub fn new(arriving: &Arc<Semaphore>) -> Self {
        Self { arriving: Arc::clone(arriving), held: Mutex::default() }
    }

    /// Room for so many bytes more, at least; how many there are. `reason`: why they are not on disk.
    pub fn grow(&self, bytes: u64, reason: &str) -> io::Result<u64> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.arriving)
            .try_acquire_many_owned(units)
            .map_err(|_| io::Error::other(format!("{reason}; nor in memory, where other downloads are")))?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(all) => all.merge(permit),
            None => *held = Some(permit),
        }
        Ok(u64::from(units) * UNIT)
    }
}
