//! What the admin API shows of a plugin's module beside its state.

use crate::model::{ModuleState, PluginEntry};
use crate::modules::{Failure, NextTry, Notes, NotesByModule};
use crate::protobuf::admin;

/// What failed, since when, and what comes next; `None` while nothing does.
pub fn view_failure(entry: &PluginEntry, notes: &NotesByModule) -> Option<admin::ModuleFailure> {
    notes_of(entry, notes)?.failing.as_ref().map(view)
}

fn view(failure: &Failure) -> admin::ModuleFailure {
    let next_try = match failure.next {
        NextTry::At(time) => whole_seconds(time),
        NextTry::WhenFileChanges | NextTry::WhenSecretChanges | NextTry::WhenPluginChanges => String::new(),
    };
    admin::ModuleFailure {
        reason: failure.reason.clone(),
        since: whole_seconds(failure.since),
        attempts: failure.attempts,
        next_try,
        tried_again: failure.next.condition().unwrap_or_default().into(),
    }
}

/// RFC 3339. Nobody waits for fractions of a second.
fn whole_seconds(time: jiff::Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

/// That a newer one is not to be had or not rolled out, and what inspection found odd.
pub fn module_warnings(entry: &PluginEntry, notes: &NotesByModule) -> Vec<String> {
    let Some(Notes { failing, warnings, image, tag_means }) = notes_of(entry, notes) else { return Vec::new() };
    let means = tag_means.zip(entry.desired.module()).map(|(means, reference)| {
        let runs = image.map(|image| format!("; what runs is of sha256:{image}")).unwrap_or_default();
        format!("{} now means sha256:{means}{runs} (--tag-refresh only reports)", reference.location)
    });
    let failing = failing.iter().filter(|_| matches!(entry.module, ModuleState::Ready(_)));
    let failing = failing.map(|failure| format!("a newer module is not to be had: {}", failure.reason));
    failing.chain(means).chain(warnings.iter().cloned()).collect()
}

/// sha256 of the image that the desired module is of, in hex; empty where it is of none.
pub fn view_image(entry: &PluginEntry, notes: &NotesByModule) -> String {
    let image = notes_of(entry, notes).and_then(|notes| notes.image);
    image.filter(|_| matches!(entry.module, ModuleState::Ready(_))).map(|image| image.to_string()).unwrap_or_default()
}

fn notes_of<'a>(entry: &PluginEntry, notes: &'a NotesByModule) -> Option<&'a Notes> {
    notes.get(entry.desired.module()?)
}
