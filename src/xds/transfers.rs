//! Which modules proxies are fetching: told by the module server, heard by the stream that caused it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;

use crate::model::Digest;

/// What one proxy has fetched of one module since its stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Requests that have come.
    pub began: u32,
    /// Of those, the ones that have not ended.
    pub running: u32,
    /// Of those, the ones that were answered to the last byte.
    pub whole: u32,
}

/// All that one proxy has fetched, by module.
pub type Transfers = Arc<BTreeMap<Digest, Transfer>>;

/// Modules whose fetches are kept beyond those that are waited for: the map is copied with each request.
const KEPT: usize = 16;

/// Every stream's line to the module server. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Exchange(Arc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    open: DashMap<u64, watch::Sender<Transfers>>,
    /// Keys from the operating system: each proxy sees its own token, and none of them tells the next.
    key: RandomState,
    opened: AtomicU64,
}

/// A stream's end of it; dropping it hangs up.
#[derive(Debug)]
pub(super) struct Line {
    /// What the proxy's requests carry. Not to be guessed, so that nobody else speaks for this proxy.
    pub token: u64,
    pub transfers: watch::Receiver<Transfers>,
    exchange: Exchange,
}

impl Exchange {
    pub(super) fn open(&self) -> Line {
        let (sender, transfers) = watch::channel(Transfers::default());
        let token = self.0.key.hash_one(self.0.opened.fetch_add(1, Ordering::Relaxed));
        self.0.open.insert(token, sender);
        Line { token, transfers, exchange: self.clone() }
    }

    /// A proxy has asked for a module.
    pub fn began(&self, token: u64, digest: Digest) {
        self.note(token, digest, |transfer| {
            transfer.began = transfer.began.saturating_add(1);
            transfer.running = transfer.running.saturating_add(1);
        });
    }

    /// It was answered, to the last byte or not.
    pub fn ended(&self, token: u64, digest: Digest, is_whole: bool) {
        self.note(token, digest, |transfer| {
            transfer.running = transfer.running.saturating_sub(1);
            transfer.whole = transfer.whole.saturating_add(is_whole.into());
        });
    }

    fn note(&self, token: u64, digest: Digest, change: impl FnOnce(&mut Transfer)) {
        if let Some(sender) = self.0.open.get(&token) {
            sender.send_modify(|transfers| change(Arc::make_mut(transfers).entry(digest).or_default()));
        }
    }
}

impl Line {
    /// Forgets what is done with, once there is much of it.
    pub(super) fn forget(&self, is_done_with: impl Fn(&Digest) -> bool) {
        let Some(sender) = self.exchange.0.open.get(&self.token) else { return };
        sender.send_if_modified(|transfers| {
            if transfers.len() > KEPT {
                let is_kept = |digest: &Digest, transfer: &Transfer| transfer.running > 0 || !is_done_with(digest);
                Arc::make_mut(transfers).retain(|digest, transfer| is_kept(digest, transfer));
            }
            false
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.exchange.0.open.remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_token_of_one_stream_says_nothing_of_the_next_or_of_another_process() {
        let (here, there) = (Exchange::default(), Exchange::default());
        let tokens = |exchange: &Exchange| (0..1000).map(|_| exchange.open().token).collect::<Vec<_>>();
        let (here, there) = (tokens(&here), tokens(&there));
        let differences: BTreeSet<_> = here.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let all: BTreeSet<_> = here.iter().chain(&there).collect();
        assert_eq!((differences.len(), all.len()), (999, 2000));
    }

    #[test]
    fn a_stream_that_fetches_for_years_keeps_what_is_waited_for_and_little_else() {
        let exchange = Exchange::default();
        let mut line = exchange.open();
        let waited_for = Digest::of(b"waited for");
        exchange.began(line.token, waited_for);
        exchange.ended(line.token, waited_for, true);
        for number in 0..1000u32 {
            let digest = Digest::of(&number.to_be_bytes());
            exchange.began(line.token, digest);
            line.forget(|digest| *digest != waited_for);
            exchange.ended(line.token, digest, true);
        }
        let kept = line.transfers.borrow_and_update();
        assert!(kept.len() <= KEPT + 2 && kept[&waited_for].whole == 1, "{kept:?}");
    }

    #[test]
    fn a_stream_hears_of_its_own_fetches_until_it_ends() {
        let exchange = Exchange::default();
        let (mut one, other) = (exchange.open(), exchange.open());
        let digest = Digest::of(b"module");
        exchange.began(one.token, digest);
        exchange.began(one.token, digest);
        exchange.ended(one.token, digest, true);
        let transfer = Transfer { began: 2, running: 1, whole: 1 };
        assert_eq!(**one.transfers.borrow_and_update(), BTreeMap::from([(digest, transfer)]));
        assert!(other.transfers.borrow().is_empty());
        let token = one.token;
        drop(one);
        exchange.ended(token, digest, true);
        assert_eq!(exchange.0.open.len(), 1);
    }
}
