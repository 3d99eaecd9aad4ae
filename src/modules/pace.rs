//! How long to wait for what.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The waits of this room. Tests wait less.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the second attempt.
    pub first_retry: Duration,
    /// Between attempts in the long run, and where the source gave bytes that will not do.
    pub slowest_retry: Duration,
    /// A server that wants to be left alone for longer is asked after that time all the same.
    pub longest_obedience: Duration,
    /// How long a module that is stored from before waits for its server before it is used.
    pub patience: Duration,
    /// Between looks at a file, for changes that no watch reported.
    pub poll: Duration,
    /// How long a file must stay as it is where nothing says that its writer has finished.
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(1),
            slowest_retry: Duration::from_secs(300),
            longest_obedience: Duration::from_secs(3600),
            patience: Duration::from_secs(3),
            poll: Duration::from_secs(2),
            settle: Duration::from_millis(300),
        }
    }
}

/// Exponential back-off with jitter.
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub fn new(pace: &Pace) -> Self {
        Self { next: pace.first_retry, longest: pace.slowest_retry }
    }

    /// The wait before the next attempt; doubles with each call.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        jittered(wait, random())
    }
}

/// For waits that are not of a row of failures.
pub fn jittered_now(wait: Duration) -> Duration {
    jittered(wait, random())
}

/// Between half of it and all of it, so that many waits that began together do not end together.
fn jittered(wait: Duration, random: u16) -> Duration {
    wait.mul_f64(0.5 + f64::from(random) / f64::from(u16::MAX) / 2.0)
}

/// Unpredictable enough for jitter: the seed of a hash map.
fn random() -> u16 {
    RandomState::new()
        .hash_one(0)
        .to_le_bytes()
        .first_chunk()
        .map(|bytes| u16::from_le_bytes(*bytes))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_cut_by_half_at_most() {
        let mut backoff = Backoff::new(&Pace::default());
        let longest = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(Duration::from_secs);
        for wait in longest {
            let actual = backoff.next();
            assert!(actual <= wait && actual >= wait / 2, "{actual:?} of {wait:?}");
        }
    }
}
