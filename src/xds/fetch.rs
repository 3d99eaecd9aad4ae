//! A module on its way into a client's code cache: when the next attempt is due, and what becomes of it.
//!
//! Pure. What the module server heard comes in; a [`Verdict`] goes out.

use std::time::{Duration, Instant};

use super::transfers::Transfer;

/// Attempts after the first refusal, where no fetch was seen: another replica may have answered it. Together they take
/// as long as an Envoy that starts may be kept waiting for its listeners.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(2),
];

/// Attempts beyond that, where falling back would take away what the client runs: each waits twice as long as the one
/// before, up to the last.
const STUCK_FIRST: Duration = Duration::from_secs(10);
const STUCK_LAST: Duration = Duration::from_secs(300);

/// Mostly, Envoy has the last bytes of a fetch a moment after they were sent: that is tried once.
pub(super) const AFTER_FETCH: Duration = Duration::from_millis(20);

/// Attempts after that. What was handed to the kernel, or to a server in front, may be on its way for long, and each
/// refusal meanwhile makes the Envoy fetch the module once more.
const ON_ITS_WAY: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// A module on its way into the client's code cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    /// When the next attempt is due.
    pub next: Instant,
    /// Of the attempts so far; once one was answered, of those after it.
    pub refusals: usize,
    /// What had been fetched when this began.
    since: Transfer,
    /// The client has held it before, and may hold it yet.
    was_held: bool,
    /// What had been fetched when the last attempt was sent.
    before: Transfer,
    /// An attempt was sent right after a fetch was answered.
    has_hurried: bool,
    /// Why it would have been given up, were there a way without it.
    pub stuck: Option<&'static str>,
}

/// What becomes of a module whose next attempt is due.
pub(super) enum Verdict {
    /// It is being fetched.
    Wait,
    Attempt,
    /// The client has it: it refused without fetching, so that the refusal is the plugin's own. The traffic's name will
    /// tell, where it is blamed on the plugin.
    Held {
        is_certain: bool,
    },
    FallBack(&'static str),
}

impl Fetch {
    pub fn new(now: Instant, since: Transfer, was_held: bool) -> Self {
        let was_held = was_held || since.whole > 0;
        Self { next: now, refusals: 0, since, was_held, before: since, has_hurried: false, stuck: None }
    }

    fn has_asked(&self, transfer: Transfer) -> bool {
        transfer.began > self.since.began
    }

    /// Whether it was answered, and nothing was tried since.
    pub fn may_hurry(&self, transfer: Transfer) -> bool {
        transfer.whole > self.since.whole && !self.has_hurried
    }

    fn pace(&self) -> &'static [Duration] {
        if self.has_hurried { &ON_ITS_WAY } else { &AGAIN }
    }

    /// How long to wait after the next refusal.
    pub fn delay(&self) -> Duration {
        let beyond = || {
            let doublings = u32::try_from(self.refusals - self.pace().len()).unwrap_or(u32::MAX);
            STUCK_FIRST.saturating_mul(2u32.saturating_pow(doublings)).min(STUCK_LAST)
        };
        self.pace().get(self.refusals).copied().unwrap_or_else(beyond)
    }

    /// An attempt is sent.
    pub fn tried(&mut self, transfer: Transfer, stuck: Option<&'static str>) {
        if self.may_hurry(transfer) {
            (self.has_hurried, self.refusals) = (true, 0);
        }
        (self.before, self.stuck) = (transfer, stuck);
    }

    pub fn verdict(&self, transfer: Transfer) -> Verdict {
        if transfer.running > 0 {
            return Verdict::Wait;
        }
        let has_asked_since = transfer.began > self.before.began;
        match self.refusals {
            0 => Verdict::Attempt,
            _ if self.may_hurry(transfer) => Verdict::Attempt,
            // One refusal right after a fetch may come of bytes that are on their way, and the next fetch be another
            // replica's.
            2.. if self.has_hurried && !has_asked_since => Verdict::Held { is_certain: true },
            tries if tries < self.pace().len() => Verdict::Attempt,
            // Another replica may have answered all of them.
            _ if self.was_held && !self.has_asked(transfer) => Verdict::Held { is_certain: false },
            _ if !self.has_asked(transfer) => Verdict::FallBack(
                "the proxy did not ask the module server: it is out of reach, or --modules-url is not where it is",
            ),
            _ if !self.has_hurried => Verdict::FallBack("the proxy could not fetch a module to its end"),
            _ => Verdict::FallBack("the proxy fetched a module and did not keep it in its code cache"),
        }
    }
}
