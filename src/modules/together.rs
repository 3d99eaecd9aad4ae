//! Writes that many wait for, done together: who comes while one is under way shares the next with all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Numbers who comes.
#[derive(Clone, Default)]
pub struct Together {
    come: Arc<AtomicU64>,
    /// Who had come when the last write began that has ended. Locked by who writes; the others wait in line.
    served: Arc<Mutex<u64>>,
}

impl Together {
    /// Returns when some `write` has run that began after this was called. It runs on a thread for blocking work, and to
    /// its end even if nobody waits for it any more.
    pub async fn write(&self, write: impl FnOnce() + Send + 'static) {
        let number = self.come.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = Arc::clone(&self.served).lock_owned().await;
        if *served >= number {
            return;
        }
        let come = Arc::clone(&self.come);
        let written = tokio::task::spawn_blocking(move || {
            let until = come.load(Ordering::SeqCst);
            write();
            *served = until;
        });
        if let Err(crash) = written.await
            && crash.is_panic()
        {
            std::panic::resume_unwind(crash.into_panic());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_thousand_that_come_during_a_write_share_the_next_and_each_finds_its_own_written() {
        let (together, wanted, written) =
            (Together::default(), Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let ((go, may_go), (begin, has_begun)) = (mpsc::channel(), mpsc::channel());
        let first = tokio::spawn({
            let together = together.clone();
            let wait = move || {
                begin.send(()).unwrap();
                may_go.recv().unwrap();
            };
            async move { together.write(wait).await }
        });
        while has_begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let others = (1..=1000).map(|number| {
            let (together, wanted, written) = (together.clone(), wanted.clone(), written.clone());
            async move {
                *wanted.lock().unwrap() = number;
                let seen = written.clone();
                together.write(move || seen.lock().unwrap().push(*wanted.lock().unwrap())).await;
                assert!(written.lock().unwrap().last().is_some_and(|last| *last >= number), "{number}");
            }
        });
        let others = tokio::spawn(futures::future::join_all(others));
        while together.come.load(Ordering::SeqCst) <= 1000 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        first.await.unwrap();
        others.await.unwrap();
        assert_eq!(*written.lock().unwrap(), [1000]);
    }
}
