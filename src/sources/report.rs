//! What is wrong with one resource, collected while it is read: all of it, not only the first.

use std::path::{Path, PathBuf};

use super::Finding;
use super::yaml::{Node, Place};
use crate::model::PluginId;

/// The findings of one resource, or of a file that is none.
pub(super) struct Report<'n> {
    file: PathBuf,
    /// Such as `WasmPlugin shop/auth`.
    resource: String,
    plugin: Option<PluginId>,
    /// Where fields are looked up.
    root: &'n Node,
    pub faults: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl<'n> Report<'n> {
    pub(super) fn new(file: &Path, root: &'n Node) -> Self {
        let (faults, warnings) = (Vec::new(), Vec::new());
        Self { file: file.to_owned(), resource: String::new(), plugin: None, root, faults, warnings }
    }

    /// Says whose the findings are, those found before as well.
    pub(super) fn name(&mut self, resource: String, plugin: Option<PluginId>) {
        for finding in self.faults.iter_mut().chain(&mut self.warnings) {
            finding.resource.clone_from(&resource);
            finding.plugin.clone_from(&plugin);
        }
        (self.resource, self.plugin) = (resource, plugin);
    }

    /// The resource is refused.
    pub(super) fn fault(&mut self, field: &str, reason: impl Into<String>) {
        let finding = self.finding(field, reason.into());
        self.faults.push(finding);
    }

    pub(super) fn has_fault(&self, field: &str) -> bool {
        self.faults.iter().any(|fault| fault.field == field)
    }

    /// The resource is accepted, and yet.
    pub(super) fn warn(&mut self, field: &str, reason: impl Into<String>) {
        let finding = self.finding(field, reason.into());
        self.warnings.push(finding);
    }

    fn finding(&self, field: &str, reason: String) -> Finding {
        let Place { line, column } = self.root.locate(field);
        Finding {
            file: self.file.clone(),
            line,
            column,
            resource: self.resource.clone(),
            plugin: self.plugin.clone(),
            field: field.to_owned(),
            reason,
        }
    }
}

/// A finding about a whole file or folder.
pub(super) fn about_file(file: &Path, reason: impl Into<String>) -> Finding {
    Finding {
        file: file.to_owned(),
        line: 0,
        column: 0,
        resource: String::new(),
        plugin: None,
        field: String::new(),
        reason: reason.into(),
    }
}
