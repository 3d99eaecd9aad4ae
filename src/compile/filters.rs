//! The filters of plugin revisions, each encoded once: for all kinds of proxies that run it, and through all changes of
//! the plugins that stand beside it.
//!
//! Invariant: what is found here is what would be made. A revision covers all that its filter is made of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::content::Filter;
use crate::model::Revision;

/// The place of one filter; whoever needs it first fills it.
pub type Place = Arc<OnceLock<Arc<Filter>>>;

/// With whether modules are delivered by digest.
type ByRevision = HashMap<(Revision, bool), Weak<OnceLock<Arc<Filter>>>>;

/// The filters that some kind of proxy runs. They go with the last kind that does.
#[derive(Debug, Default)]
pub struct Filters(Mutex<ByRevision>);

impl Filters {
    /// The places of revisions whose modules are all delivered one way; nothing runs where there is no revision.
    pub fn places(&self, revisions: impl Iterator<Item = Option<Revision>>, is_by_digest: bool) -> Vec<Option<Place>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = |revision| {
            let known = known.entry((revision, is_by_digest)).or_default();
            known.upgrade().unwrap_or_else(|| {
                let place = Place::default();
                *known = Arc::downgrade(&place);
                place
            })
        };
        revisions.map(|revision| revision.map(&mut place)).collect()
    }

    /// Forgets those that no kind runs any more.
    pub fn tidy(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, place| place.strong_count() > 0);
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
