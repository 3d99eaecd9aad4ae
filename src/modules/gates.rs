//! One at a time per image: who comes second finds it in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::model::Digest;

type Gate = tokio::sync::Mutex<()>;

/// By repository, too, so that a slow registry holds nobody up who gets the same image elsewhere.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<(String, Digest), Weak<Gate>>>);

impl Gates {
    /// Waits until nobody else downloads this image of this repository.
    pub async fn enter(&self, home: &str, image: Digest) -> OwnedMutexGuard<()> {
        self.gate(home, image).lock_owned().await
    }

    fn gate(&self, home: &str, image: Digest) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let place = gates.entry((home.to_owned(), image)).or_default();
        place.upgrade().unwrap_or_else(|| {
            let gate = Arc::new(Gate::default());
            *place = Arc::downgrade(&gate);
            gate
        })
    }
}
