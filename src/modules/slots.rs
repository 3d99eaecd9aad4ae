//! How many downloads may run at once: in all, and per server, so that a slow server holds up its own modules only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Each download holds a connection and an unnamed file, and hardly any memory. Leaves room for others while thirty
/// servers hang.
const IN_ALL: usize = 64;
const PER_SERVER: usize = 2;

pub struct Slots {
    all: Arc<Semaphore>,
    /// By host and port; entries nobody waits for are dropped with the next call.
    servers: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Held during a download, and until what came is inspected.
pub struct Slot {
    _of_server: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Slots {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(IN_ALL)), servers: Mutex::default() }
    }
}

impl Slots {
    /// `server`: its host and port.
    pub async fn take(&self, server: &str) -> Slot {
        // The server's first: who waits for a slow server must not hold one of all.
        let of_server = self.server(server).acquire_owned().await.expect("the semaphore is never closed");
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("the semaphore is never closed");
        Slot { _of_server: of_server, _of_all: of_all }
    }

    fn server(&self, name: &str) -> Arc<Semaphore> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, semaphore| semaphore.strong_count() > 0);
        let place = servers.entry(name.to_owned()).or_default();
        place.upgrade().unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(PER_SERVER));
            *place = Arc::downgrade(&semaphore);
            semaphore
        })
    }
}
