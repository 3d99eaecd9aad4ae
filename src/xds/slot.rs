//! The way of snapshots to one stream: the latest one waits there until it is taken.
//!
//! One small allocation per stream and one look per poll, as each change goes this way to every proxy that it touches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::snapshot::Snapshot;

/// Where snapshots are left for a stream. Dropped when nothing more will come.
#[derive(Debug)]
pub struct SnapshotSender(Arc<Slot>);

/// Where a stream finds them.
#[derive(Debug)]
pub struct SnapshotReceiver(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    latest: Option<Arc<Snapshot>>,
    is_closed: bool,
    /// The stream is gone, and its goodbye is on the way.
    is_abandoned: bool,
    reader: Option<Waker>,
}

/// A slot for one stream; nothing waits in it yet.
pub fn slot() -> (SnapshotSender, SnapshotReceiver) {
    let slot = Arc::<Slot>::default();
    (SnapshotSender(slot.clone()), SnapshotReceiver(slot))
}

impl SnapshotSender {
    /// Takes the place of what was not taken yet.
    pub fn send(&self, snapshot: Arc<Snapshot>) {
        let (reader, before) = {
            let mut content = self.0.lock();
            if content.is_abandoned {
                return;
            }
            (content.reader.take(), content.latest.replace(snapshot))
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        // It may be the last one that holds the modules of a fleet: not while the slot is locked.
        drop(before);
    }
}

impl Drop for SnapshotSender {
    fn drop(&mut self) {
        let reader = {
            let mut content = self.0.lock();
            content.is_closed = true;
            content.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl SnapshotReceiver {
    /// Takes what waits; `None` once nothing more will come.
    pub(super) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Arc<Snapshot>>> {
        let mut content = self.0.lock();
        if let Some(latest) = content.latest.take() {
            return Poll::Ready(Some(latest));
        }
        if content.is_closed {
            return Poll::Ready(None);
        }
        match &mut content.reader {
            Some(reader) => reader.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    #[cfg(test)]
    pub fn take(&self) -> Option<Arc<Snapshot>> {
        self.0.lock().latest.take()
    }

    /// What waits, and goes on waiting.
    #[cfg(test)]
    pub fn peek(&self) -> Option<Arc<Snapshot>> {
        self.0.lock().latest.clone()
    }
}

impl Drop for SnapshotReceiver {
    fn drop(&mut self) {
        let mut content = self.0.lock();
        let left = std::mem::replace(&mut *content, Content { is_abandoned: true, ..Content::default() });
        drop(content);
        drop(left);
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::xds::tests::empty_snapshot;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_that_was_away_finds_the_latest_and_nothing_older() {
        let (sender, receiver) = slot();
        let counter = Arc::<Counter>::default();
        let waker = counter.clone().into();
        let mut context = Context::from_waker(&waker);
        assert!(receiver.poll_take(&mut context).is_pending());
        let [older, latest] = [empty_snapshot(), empty_snapshot()].map(Arc::new);
        sender.send(older.clone());
        sender.send(latest.clone());
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&older), 1, "nothing that is out of date is kept");
        let taken = receiver.poll_take(&mut context);
        assert!(matches!(taken, Poll::Ready(Some(taken)) if Arc::ptr_eq(&taken, &latest)));
        assert!(receiver.poll_take(&mut context).is_pending());
        sender.send(latest);
        drop(sender);
        assert!(matches!(receiver.poll_take(&mut context), Poll::Ready(Some(_))), "the last one is not lost");
        assert!(matches!(receiver.poll_take(&mut context), Poll::Ready(None)));
    }

    #[test]
    fn a_stream_that_has_gone_keeps_no_snapshot() {
        let (sender, receiver) = slot();
        let [older, latest] = [empty_snapshot(), empty_snapshot()].map(Arc::new);
        sender.send(older.clone());
        drop(receiver);
        sender.send(latest.clone());
        assert_eq!([older, latest].map(|it| Arc::strong_count(&it)), [1, 1]);
    }

    #[tokio::test]
    async fn a_stream_that_waits_is_woken_by_the_end_too() {
        let (sender, receiver) = slot();
        let waiting = tokio::spawn(async move { poll_fn(|context| receiver.poll_take(context)).await.is_none() });
        tokio::task::yield_now().await;
        drop(sender);
        assert!(waiting.await.unwrap());
    }
}
