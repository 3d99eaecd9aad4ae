//! Writes what is to be remembered, beside the one who remembers: a disk that takes its time holds up nobody.
//!
//! Comes in: what each file is to hold, the latest wins. Goes out: how far that is on the disk, for those who must not
//! go on before it is. A disk that fails is logged when that begins, and everything is tried again with the next order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use tokio::sync::{mpsc, watch};

use crate::disk;

/// Takes orders.
#[derive(Clone, Debug)]
pub struct Scribe {
    desk: Arc<Desk>,
    /// Rings for the writer; without one, every order is carried out at once.
    bell: Option<mpsc::Sender<()>>,
}

/// Carries them out.
#[derive(Debug)]
pub struct Writer {
    desk: Arc<Desk>,
    bell: mpsc::Receiver<()>,
}

/// The place of an order in the order of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Desk {
    orders: Mutex<Orders>,
    written: watch::Sender<Ticket>,
}

#[derive(Debug, Default)]
struct Orders {
    /// What files are to hold, `None` for those that are to go. One entry per file at most.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    last: Ticket,
    is_failing: bool,
}

/// A scribe, and the writer that has to be run for it.
pub fn scribe() -> (Scribe, Writer) {
    // One ring is enough for any number of orders.
    let (bell, rung) = mpsc::channel(1);
    let desk = Arc::new(Desk { orders: Mutex::default(), written: watch::Sender::default() });
    (Scribe { desk: desk.clone(), bell: Some(bell) }, Writer { desk, bell: rung })
}

impl Scribe {
    /// Without a writer: an order is carried out before it returns.
    #[cfg(test)]
    pub fn at_once() -> Self {
        Self { bell: None, ..scribe().0 }
    }

    /// The file is to hold this, or to go.
    pub fn put(&self, path: PathBuf, content: Option<Vec<u8>>) -> Ticket {
        let ticket = {
            let mut orders = self.desk.orders();
            orders.files.insert(path, content);
            orders.last.0 += 1;
            orders.last
        };
        match &self.bell {
            // Full: it rings already.
            Some(bell) => drop(bell.try_send(())),
            None => self.desk.write(),
        }
        ticket
    }

    /// How far orders were carried out, as well as the disk allowed.
    pub fn written(&self) -> watch::Receiver<Ticket> {
        self.desk.written.subscribe()
    }
}

impl Writer {
    /// Writes until every scribe is gone, and what they left behind.
    pub async fn run(mut self) {
        while self.bell.recv().await.is_some() {
            let desk = self.desk.clone();
            if let Err(crash) = tokio::task::spawn_blocking(move || desk.write()).await {
                std::panic::resume_unwind(crash.into_panic());
            }
        }
    }
}

impl Desk {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let (files, last) = {
            let mut orders = self.orders();
            (std::mem::take(&mut orders.files), orders.last)
        };
        let mut folders = BTreeSet::new();
        let mut failed = BTreeMap::new();
        let mut fault = None;
        for (path, content) in files {
            match carry_out(&path, content.as_deref()) {
                Ok(()) => folders.extend(path.parent().map(PathBuf::from)),
                Err(error) => {
                    fault = Some((path.clone(), error));
                    failed.insert(path, content);
                }
            }
        }
        for folder in folders {
            if let Err(error) = disk::sync_folder(&folder) {
                fault = Some((folder, error));
            }
        }
        let mut orders = self.orders();
        for (path, content) in failed {
            // What came meanwhile is newer.
            orders.files.entry(path).or_insert(content);
        }
        let is_news = fault.is_some() && !orders.is_failing;
        orders.is_failing = fault.is_some();
        drop(orders);
        if let Some((path, error)) = fault.filter(|_| is_news) {
            let path = path.display();
            tracing::error!(%path, %error, "nothing can be remembered across a restart: see to --data-dir");
        }
        // Proxies do not do without a change because a disk is full.
        self.written.send_replace(last);
    }
}

fn carry_out(path: &std::path::Path, content: Option<&[u8]>) -> io::Result<()> {
    match content {
        Some(content) => disk::replace(path, content),
        None => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_orders_are_on_the_disk_when_their_ticket_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let (scribe, writer) = scribe();
        let running = tokio::spawn(writer.run());
        let path = |number: usize| folder.path().join(format!("deep/{}", number % 10));
        let tickets: Vec<_> =
            (0..1000).map(|number| scribe.put(path(number), Some(number.to_string().into_bytes()))).collect();
        let gone = scribe.put(path(0), None);
        scribe.written().wait_for(|written| *written >= gone).await.unwrap();
        assert!(tickets.iter().all(|ticket| *ticket < gone));
        assert_eq!(fs::read_to_string(path(9)).unwrap(), "999");
        assert!(!path(0).exists());

        // What is ordered last is written although nobody waits for it.
        scribe.put(path(0), Some(b"late".to_vec()));
        drop(scribe);
        running.await.unwrap();
        assert_eq!(fs::read_to_string(path(0)).unwrap(), "late");
    }

    #[test]
    fn what_could_not_be_written_is_written_when_the_disk_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let (taken, other) = (folder.path().join("taken"), folder.path().join("other"));
        // A file where a folder should be.
        fs::write(&taken, "").unwrap();
        let scribe = Scribe::at_once();
        let ticket = scribe.put(taken.join("a"), Some(b"1".to_vec()));
        assert_eq!(*scribe.written().borrow(), ticket, "nobody waits for a disk that fails");

        fs::remove_file(&taken).unwrap();
        scribe.put(other, Some(b"2".to_vec()));
        assert_eq!(fs::read_to_string(taken.join("a")).unwrap(), "1");
    }
}
