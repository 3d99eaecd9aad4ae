//! Whom an event concerns: a change of one file wakes those who follow that file, and nobody else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, Event, EventKind, ModifyKind, RenameMode};
use tokio::sync::Notify;

use super::Look;

/// One for each who follows a file.
#[derive(Debug)]
pub struct Bell {
    pub path: PathBuf,
    /// The file as its follower read it last.
    seen: Mutex<Look>,
    /// Since it was last answered, the file's writer has finished.
    is_complete: AtomicBool,
    rung: Notify,
}

impl Bell {
    fn ring(&self, is_complete: bool) {
        self.is_complete.fetch_or(is_complete, Ordering::Relaxed);
        // The bell is answered after this, with what was said before it.
        self.rung.notify_one();
    }

    /// The next reason to look: true if the file's writer has finished.
    pub async fn rung(&self) -> bool {
        self.rung.notified().await;
        self.is_complete.swap(false, Ordering::Relaxed)
    }

    pub fn saw(&self, look: Look) {
        *lock(&self.seen) = look;
    }

    /// Rings if the file looks other than it did when it was read.
    pub fn compare(&self, look: Look) {
        if *lock(&self.seen) != look {
            self.ring(false);
        }
    }

    /// Whether what happens under another name may change it.
    fn is_linked(&self) -> bool {
        lock(&self.seen).is_some_and(|seen| seen.is_linked)
    }
}

/// The bells of a folder, by the file they are for.
type OfFolder = HashMap<PathBuf, Vec<Arc<Bell>>>;

/// All bells. Locked for moments only, as the watch's own thread rings them.
#[derive(Debug, Default)]
pub struct Bells {
    by_folder: Mutex<HashMap<PathBuf, OfFolder>>,
    /// Something was missed: everything has to be looked at.
    pub missed: Notify,
}

impl Bells {
    pub fn hang(&self, folder: &Path, path: &Path) -> Arc<Bell> {
        let (seen, is_complete) = (Mutex::default(), AtomicBool::default());
        let bell = Arc::new(Bell { path: path.to_owned(), seen, is_complete, rung: Notify::new() });
        let mut folders = lock(&self.by_folder);
        let of_folder = folders.entry(folder.to_owned()).or_default();
        of_folder.entry(path.to_owned()).or_default().push(bell.clone());
        bell
    }

    pub fn take_down(&self, folder: &Path, bell: &Arc<Bell>) {
        let mut folders = lock(&self.by_folder);
        let Some(of_folder) = folders.get_mut(folder) else { return };
        let Some(of_file) = of_folder.get_mut(&bell.path) else { return };
        of_file.retain(|other| !Arc::ptr_eq(other, bell));
        if of_file.is_empty() {
            of_folder.remove(&bell.path);
        }
        if of_folder.is_empty() {
            folders.remove(folder);
        }
    }

    /// All of them, by folder.
    pub fn all(&self) -> Vec<(PathBuf, Vec<Arc<Bell>>)> {
        let folders = lock(&self.by_folder);
        let bells = |of_folder: &OfFolder| of_folder.values().flatten().cloned().collect();
        folders.iter().map(|(folder, of_folder)| (folder.clone(), bells(of_folder))).collect()
    }

    /// From the watch's thread.
    pub fn put(&self, event: notify::Result<Event>) {
        let Ok(event) = event.inspect_err(|error| tracing::debug!(%error, "watching modules failed")) else {
            return self.missed.notify_one();
        };
        if event.need_rescan() {
            return self.missed.notify_one();
        }
        let Some(is_complete) = says_complete(event.kind) else { return };
        event.paths.iter().for_each(|path| self.ring(path, is_complete));
    }

    fn ring(&self, path: &Path, is_complete: bool) {
        let folders = lock(&self.by_folder);
        if folders.contains_key(path) {
            // The folder itself has gone, or come.
            self.missed.notify_one();
        }
        let Some(of_folder) = path.parent().and_then(|folder| folders.get(folder)) else { return };
        match of_folder.get(path) {
            Some(bells) => bells.iter().for_each(|bell| bell.ring(is_complete)),
            // Such as a ConfigMap's `..data`, or the other name of a hard link.
            None => of_folder.values().flatten().filter(|bell| bell.is_linked()).for_each(|bell| bell.ring(false)),
        }
    }
}

/// Whether the writer has finished; `None` where nothing of interest has happened.
fn says_complete(kind: EventKind) -> Option<bool> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(true),
        EventKind::Access(_) => None,
        // The file is still open; its closing will be told, where the system tells such things.
        EventKind::Modify(ModifyKind::Data(_)) if cfg!(target_os = "linux") => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Some(true),
        _ => Some(false),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures::FutureExt as _;
    use notify::event::Flag;

    use super::super::look_now;
    use super::*;

    const RENAMED_HERE: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));

    /// A folder with bells for these files, of which `a` is there.
    fn bells() -> (tempfile::TempDir, Bells, [Arc<Bell>; 3]) {
        let (folder, bells) = (tempfile::tempdir().unwrap(), Bells::default());
        fs::write(folder.path().join("a"), "x").unwrap();
        let hung = ["a", "b", "link"].map(|name| bells.hang(folder.path(), &folder.path().join(name)));
        std::os::unix::fs::symlink("a", &hung[2].path).unwrap();
        for bell in &hung {
            bell.saw(look_now(&bell.path));
        }
        (folder, bells, hung)
    }

    fn put(bells: &Bells, kind: EventKind, path: &Path) {
        bells.put(Ok(Event::new(kind).add_path(path.to_owned())));
    }

    fn answers(hung: &[Arc<Bell>; 3]) -> [Option<bool>; 3] {
        hung.each_ref().map(|bell| bell.rung().now_or_never())
    }

    #[test]
    fn a_change_of_one_file_wakes_nobody_else() {
        let (folder, bells, hung) = bells();
        put(&bells, RENAMED_HERE, &folder.path().join("b"));
        assert_eq!(answers(&hung), [None, Some(true), None]);
        put(&bells, EventKind::Any, &folder.path().join("b"));
        assert_eq!(answers(&hung), [None, Some(false), None]);
        // Reading is no change.
        put(&bells, EventKind::Access(AccessKind::Close(AccessMode::Read)), &folder.path().join("b"));
        put(&bells, RENAMED_HERE, Path::new("/elsewhere/b"));
        assert_eq!(answers(&hung), [None, None, None]);
    }

    #[test]
    fn what_happens_under_another_name_wakes_those_whose_file_is_a_link() {
        let (folder, bells, hung) = bells();
        put(&bells, RENAMED_HERE, &folder.path().join("..data"));
        assert_eq!(answers(&hung), [None, None, Some(false)]);
        fs::hard_link(&hung[0].path, folder.path().join("other")).unwrap();
        hung[0].saw(look_now(&hung[0].path));
        put(&bells, RENAMED_HERE, &folder.path().join("other"));
        assert_eq!(answers(&hung), [Some(false), None, Some(false)]);
    }

    #[test]
    fn everything_is_looked_at_when_events_were_lost_or_the_folder_itself_has_changed() {
        let (folder, bells, hung) = bells();
        let is_missed = || bells.missed.notified().now_or_never().is_some();
        assert!(!is_missed());
        put(&bells, EventKind::Any, folder.path());
        assert!(is_missed());
        bells.put(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(is_missed());
        bells.put(Err(notify::Error::generic("lost")));
        assert!(is_missed());
        for (folder, of_folder) in bells.all() {
            of_folder.iter().for_each(|bell| bell.compare(look_now(&bell.path)));
            of_folder.iter().for_each(|bell| bells.take_down(&folder, bell));
        }
        assert_eq!(answers(&hung), [None, None, None]);
        assert!(bells.all().is_empty());
    }
}
