//! What only shows where resources are looked at together: plugins that no listener takes, templates that clash,
//! references that lead nowhere.
//!
//! Pure. Comes in: all that is loaded. Goes out: warnings, never faults, as what is missing here may be served by
//! somebody else. Silent where it cannot be sure: of a plugin that reaches no template nothing is known.

mod plugins;
mod reach;
mod secrets;
mod shapes;
mod templates;
#[cfg(test)]
mod tests;

pub(super) use self::shapes::{Socket, listeners};
use super::report::about_file;
use super::{Finding, Loaded};
use crate::model::PluginId;

/// All warnings about `loaded` as a whole, in the order of the files.
pub fn cross_check(loaded: &Loaded, root_namespace: &str) -> Vec<Finding> {
    let mut found = Found { loaded, warnings: Vec::new() };
    plugins::check(loaded, root_namespace, &mut found);
    secrets::check(loaded, &mut found);
    templates::check(loaded, root_namespace, &mut found);
    found.warnings.sort();
    found.warnings.dedup();
    found.warnings
}

struct Found<'l> {
    loaded: &'l Loaded,
    warnings: Vec<Finding>,
}

impl Found<'_> {
    fn warn(&mut self, resource: String, plugin: Option<&PluginId>, field: &str, reason: String) {
        let Some(origin) = self.loaded.origins.get(&resource) else { return };
        let (line, column) = origin.locate(field);
        let finding = about_file(&origin.file, reason);
        let plugin = plugin.cloned();
        self.warnings.push(Finding { line, column, resource, plugin, field: field.to_owned(), ..finding });
    }
}
