//! The state of every wanted module, for others to watch.
//!
//! Comes in: what is wanted, what became ready, what failed. Goes out: two watch channels. A failure never takes away
//! what is ready; it is noted beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::failure::Failure;
use crate::model::{Code, Digest, ModuleRef, ModuleState};

/// What is to be said of a module beside its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Why it, or a newer one, is not to be had: the attempts that failed since the last success.
    pub failing: Option<Failure>,
    /// What inspection found odd, or that nobody inspected it.
    pub warnings: Arc<[String]>,
    /// The image that the module is of, by the digest of what the reference named.
    pub image: Option<Digest>,
    /// What the reference's tag means by now, where that is another image and is only reported.
    pub tag_means: Option<Digest>,
}

pub type States = Arc<BTreeMap<ModuleRef, ModuleState>>;
pub type NotesByModule = Arc<BTreeMap<ModuleRef, Notes>>;

/// Notes change before states do: who wakes up for a state finds its notes.
#[derive(Default)]
pub struct Board {
    states: watch::Sender<States>,
    notes: watch::Sender<NotesByModule>,
}

impl Board {
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    pub fn notes(&self) -> watch::Receiver<NotesByModule> {
        self.notes.subscribe()
    }

    /// Exactly these are on the board from now on; new ones are pending.
    pub fn want(&self, refs: &BTreeSet<ModuleRef>) {
        self.notes.send_if_modified(|notes| {
            let gone = notes.keys().any(|reference| !refs.contains(reference));
            if gone {
                Arc::make_mut(notes).retain(|reference, _| refs.contains(reference));
            }
            gone
        });
        self.states.send_if_modified(|states| {
            if states.keys().eq(refs) {
                return false;
            }
            let states = Arc::make_mut(states);
            states.retain(|reference, _| refs.contains(reference));
            for reference in refs {
                states.entry(reference.clone()).or_insert(ModuleState::Pending);
            }
            true
        });
    }

    pub fn is_ready(&self, reference: &ModuleRef) -> bool {
        matches!(self.states.borrow().get(reference), Some(ModuleState::Ready(_)))
    }

    /// The image that the module is of.
    pub fn image(&self, reference: &ModuleRef) -> Option<Digest> {
        self.notes.borrow().get(reference)?.image
    }

    /// True if it is another module than before.
    pub fn ready(&self, reference: &ModuleRef, code: Code, warnings: Arc<[String]>, image: Option<Digest>) -> bool {
        self.note(reference, Notes { failing: None, warnings, image, tag_means: None });
        self.set(reference, ModuleState::Ready(code))
    }

    /// What is ready was found to be current: the row of failures has ended.
    pub fn succeed(&self, reference: &ModuleRef) {
        let before = self.notes.borrow().get(reference).cloned().unwrap_or_default();
        self.note(reference, Notes { failing: None, tag_means: None, ..before });
    }

    /// What is ready stays, though its tag means this image now. False if that is known already.
    pub fn tag_means(&self, reference: &ModuleRef, image: Digest) -> bool {
        let before = self.notes.borrow().get(reference).cloned().unwrap_or_default();
        let is_news = before.tag_means != Some(image);
        self.note(reference, Notes { failing: None, tag_means: Some(image), ..before });
        is_news
    }

    /// Last known good stays; only what never was ready fails.
    pub fn fail(&self, reference: &ModuleRef, failure: Failure) {
        let before = self.notes.borrow().get(reference).cloned().unwrap_or_default();
        let failure = failure.following(before.failing.as_ref());
        let reason = failure.reason.clone();
        self.note(reference, Notes { failing: Some(failure), ..before });
        if !self.is_ready(reference) {
            self.set(reference, ModuleState::Failed { reason });
        }
    }

    /// Nothing happens to what is no longer wanted.
    fn set(&self, reference: &ModuleRef, state: ModuleState) -> bool {
        self.states.send_if_modified(|states| {
            let is_news = states.get(reference).is_some_and(|current| !is_same(current, &state));
            if is_news {
                Arc::make_mut(states).insert(reference.clone(), state);
            }
            is_news
        })
    }

    fn note(&self, reference: &ModuleRef, note: Notes) {
        if !self.states.borrow().contains_key(reference) {
            return;
        }
        self.notes.send_if_modified(|notes| {
            let is_news = *notes.get(reference).unwrap_or(&Notes::default()) != note;
            if is_news {
                Arc::make_mut(notes).insert(reference.clone(), note);
            }
            is_news
        });
    }
}

fn is_same(left: &ModuleState, right: &ModuleState) -> bool {
    match (left, right) {
        (ModuleState::Pending, ModuleState::Pending) => true,
        (ModuleState::Ready(Code::Module(left)), ModuleState::Ready(Code::Module(right))) => {
            left.digest == right.digest && left.root_id == right.root_id
        }
        (ModuleState::Ready(Code::OnProxy(left)), ModuleState::Ready(Code::OnProxy(right))) => left == right,
        (ModuleState::Failed { reason: left }, ModuleState::Failed { reason: right }) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::NextTry;
    use super::*;
    use crate::model::{ModuleLocation, PullPolicy};

    fn reference(path: &str) -> ModuleRef {
        let location = ModuleLocation::File(path.into());
        ModuleRef { location, sha256: None, pull_policy: PullPolicy::Unspecified, pull_secret: None }
    }

    fn code(path: &str) -> Code {
        Code::OnProxy(path.into())
    }

    fn gone() -> Failure {
        Failure::first("gone".to_owned(), NextTry::WhenFileChanges)
    }

    #[test]
    fn a_failure_keeps_what_is_ready_and_is_noted() {
        let board = Board::default();
        let module = reference("/a");
        board.want(&BTreeSet::from([module.clone()]));
        board.ready(&module, code("/a"), Arc::from(["odd".to_owned()]), None);
        let failure = gone();
        board.fail(&module, failure.clone());
        assert!(board.is_ready(&module));
        let warnings = Arc::from(["odd".to_owned()]);
        let expected = Notes { failing: Some(failure), warnings, ..Notes::default() };
        assert_eq!(board.notes().borrow()[&module], expected);
        board.ready(&module, code("/a"), Arc::from([]), None);
        assert_eq!(board.notes().borrow()[&module], Notes::default());
    }

    #[test]
    fn nobody_is_woken_for_what_is_not_news() {
        let board = Board::default();
        let module = reference("/a");
        let wanted = BTreeSet::from([module.clone()]);
        board.want(&wanted);
        board.fail(&module, gone());
        let (states, notes) = (board.states(), board.notes());
        board.want(&wanted);
        board.ready(&reference("/not-wanted"), code("/b"), Arc::from([]), None);
        assert!(!states.has_changed().unwrap() && !notes.has_changed().unwrap());
        board.want(&BTreeSet::new());
        assert!(states.has_changed().unwrap() && states.borrow().is_empty());
    }

    #[test]
    fn a_row_of_failures_changes_the_notes_and_not_the_state() {
        let board = Board::default();
        let module = reference("/a");
        board.want(&BTreeSet::from([module.clone()]));
        board.fail(&module, gone());
        let states = board.states();
        board.fail(&module, gone());
        assert!(!states.has_changed().unwrap());
        assert_eq!(board.notes().borrow()[&module].failing.as_ref().map(|failure| failure.attempts), Some(2));
    }
}
