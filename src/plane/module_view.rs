//! What the admin API shows of a plugin's module beside its state.

use std::collections::HashMap;

use crate::model::{Code, Digest, ModuleRef, ModuleState, PluginEntry, PluginId};
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

/// The image that each plugin's running module is of, by the module: what runs may be what no longer is asked for.
#[derive(Debug, Default)]
pub struct Images(HashMap<PluginId, (Digest, Digest)>);

impl Images {
    /// Takes over what is known now.
    pub fn note<'a>(&mut self, entries: impl Iterator<Item = &'a PluginEntry>, notes: &NotesByModule) {
        self.0 = entries.filter_map(|entry| Some((entry.desired.id.clone(), self.of_running(entry, notes)?))).collect();
    }

    fn of_running(&self, entry: &PluginEntry, notes: &NotesByModule) -> Option<(Digest, Digest)> {
        let running = entry.running.as_ref()?;
        let Code::Module(module) = &running.code else { return None };
        let asked_for = running.plugin.module()?;
        // After a restart what ran is asked for by its digest.
        let pinned = ModuleRef { sha256: Some(module.digest), ..asked_for.clone() };
        let is_current = entry.desired.module() == Some(asked_for) && matches!(entry.module, ModuleState::Ready(_));
        let noted = notes.get(asked_for).filter(|_| is_current).or_else(|| notes.get(&pinned));
        let known = self.0.get(&entry.desired.id).filter(|(known, _)| *known == module.digest);
        noted.and_then(|notes| notes.image).map(|image| (module.digest, image)).or_else(|| known.copied())
    }

    /// sha256 of the image, in hex; empty where the running module is of none.
    pub fn view(&self, id: &PluginId) -> String {
        self.0.get(id).map(|(_, image)| image.to_string()).unwrap_or_default()
    }
}

fn notes_of<'a>(entry: &PluginEntry, notes: &'a NotesByModule) -> Option<&'a Notes> {
    notes.get(entry.desired.module()?)
}
