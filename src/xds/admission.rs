//! How many streams may be open, and how fast new ones may come.
//!
//! A refused client keeps what it has and comes again; a control plane that takes in more than it can serve loses all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tonic::Status;

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Streams that may be open at once.
    pub max_streams: usize,
    /// New streams a second in the long run; as many may come at once after a quiet second.
    pub max_streams_per_second: u32,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        // A proxy costs some 30 KiB (docs/performance.md) and a few tens of microseconds to welcome.
        Self { max_streams: 50_000, max_streams_per_second: 10_000 }
    }
}

/// Why a stream is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    TooMany,
    TooFast,
}

/// Counts the streams of one server.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    open: Arc<AtomicUsize>,
    bucket: Mutex<Bucket>,
}

/// Held by a stream for as long as it is open.
#[derive(Debug)]
pub struct Admitted(Arc<AtomicUsize>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub fn new(limits: AdmissionLimits) -> Self {
        let bucket = Bucket { left: f64::from(limits.max_streams_per_second), at: Instant::now() };
        Self { limits, open: Arc::default(), bucket: Mutex::new(bucket) }
    }

    pub fn admit(&self) -> Result<Admitted, Refusal> {
        let admitted = Admitted(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limits.max_streams {
            return Err(Refusal::TooMany);
        }
        let rate = f64::from(self.limits.max_streams_per_second);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.take(rate, Instant::now()) { Ok(admitted) } else { Err(Refusal::TooFast) }
    }

    /// What a refused client is told.
    pub fn status(&self, refusal: Refusal) -> Status {
        match refusal {
            Refusal::TooMany => Status::resource_exhausted(format!(
                "{} streams are open, which is the limit of this control plane (--max-streams)",
                self.limits.max_streams
            )),
            Refusal::TooFast => Status::unavailable(format!(
                "more than {} new streams a second (--max-streams-per-second), connect again later",
                self.limits.max_streams_per_second
            )),
        }
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, rate: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate).min(rate);
        self.at = now;
        let has_room = self.left >= 1.0;
        if has_room {
            self.left -= 1.0;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admission(max_streams: usize, max_streams_per_second: u32) -> Admission {
        Admission::new(AdmissionLimits { max_streams, max_streams_per_second })
    }

    #[test]
    fn a_place_is_free_again_when_its_stream_has_ended() {
        let admission = admission(2, 100);
        let first = admission.admit().unwrap();
        let _second = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err(), Refusal::TooMany);
        drop(first);
        assert!(admission.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_cut_at_the_rate_and_goes_on_with_it() {
        let admission = admission(100, 3);
        let burst: Vec<_> = (0..4).map(|_| admission.admit()).collect();
        assert_eq!(burst.iter().filter(|admitted| admitted.is_ok()).count(), 3);
        tokio::time::advance(Duration::from_millis(400)).await;
        assert!(admission.admit().is_ok());
        assert_eq!(admission.admit().unwrap_err(), Refusal::TooFast);
    }
}
