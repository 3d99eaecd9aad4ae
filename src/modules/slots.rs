//! How many downloads may run at once: in all, and per server, so that a slow server holds up its own modules only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

/// Each download holds a module in memory; 256 MiB at worst, and rarely over 10.
const IN_ALL: usize = 16;
/// Leaves room for others while several servers hang.
const PER_SERVER: usize = 2;

pub struct Slots {
    all: Arc<Semaphore>,
    /// By host and port; entries nobody waits for are dropped with the next call.
    servers: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Held during a download.
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
    pub async fn take(&self, url: &str) -> Slot {
        // The server's first: who waits for a slow server must not hold one of all.
        let of_server = self.server(url).acquire_owned().await.expect("the semaphore is never closed");
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("the semaphore is never closed");
        Slot { _of_server: of_server, _of_all: of_all }
    }

    fn server(&self, url: &str) -> Arc<Semaphore> {
        let name = Url::parse(url)
            .map(|url| {
                format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
            })
            .unwrap_or_default();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, semaphore| semaphore.strong_count() > 0);
        let place = servers.entry(name).or_default();
        place.upgrade().unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(PER_SERVER));
            *place = Arc::downgrade(&semaphore);
            semaphore
        })
    }
}
