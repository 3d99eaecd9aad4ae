//! A future that is asked only when it has something to say.
//!
//! A connection waits for its traffic and for its end in one task, and so does a stream. Asked together, every packet would
//! ask timers that are far away, and the shutdown, which all connections share behind one lock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Wakes its task as any future does, and is polled in earnest only after it has called for that itself.
pub(super) struct Quiet<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Quiet<F> {
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: bell.clone().into(), bell }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the look, so that a bell that rings after it wakes the task.
        this.bell.task.register(context.waker());
        if !this.bell.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_busy_task_does_not_ask_and_is_still_told() {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut sleep = Box::pin(tokio::time::sleep(Duration::from_secs(60)));
        let count = asked.clone();
        let mut quiet = Quiet::new(std::future::poll_fn(move |context| {
            count.fetch_add(1, Ordering::Relaxed);
            sleep.as_mut().poll(context)
        }));
        for _ in 0..1000 {
            let is_pending = futures::poll!(&mut quiet).is_pending();
            assert!(is_pending);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        quiet.await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
