//! How many connections and streams may be open, and how fast new streams may come.
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

/// Connections beyond one for each stream: for health checks, and for those that have to be told that there is no room.
const SPARE_CONNECTIONS: usize = 256;

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
    connections: Arc<AtomicUsize>,
    bucket: Mutex<Bucket>,
}

/// Held by a stream or a connection for as long as it is open.
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
        Self { limits, open: Arc::default(), connections: Arc::default(), bucket: Mutex::new(bucket) }
    }

    /// A place for a connection; `None` when there are too many.
    pub fn connect(&self) -> Option<Admitted> {
        place(&self.connections, self.limits.max_streams.saturating_add(SPARE_CONNECTIONS))
    }

    pub fn admit(&self) -> Result<Admitted, Refusal> {
        let admitted = place(&self.open, self.limits.max_streams).ok_or(Refusal::TooMany)?;
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

/// Dropped again where it is one too many.
fn place(open: &Arc<AtomicUsize>, at_most: usize) -> Option<Admitted> {
    let place = Admitted(Arc::clone(open));
    (open.fetch_add(1, Ordering::Relaxed) < at_most).then_some(place)
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

    #[test]
    fn connections_have_a_cap_of_their_own() {
        let admission = admission(2, 100);
        let mut connections: Vec<_> = (0..2 + SPARE_CONNECTIONS).map(|_| admission.connect().unwrap()).collect();
        assert!(admission.connect().is_none() && admission.admit().is_ok());
        connections.pop();
        assert!(admission.connect().is_some());
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
