//! Good revisions as they are kept across restarts: without their bytes.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Code, Digest, ModuleRef, Plugin, PluginRevision};

/// A good revision without its bytes, as it is kept across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    pub(super) plugin: Arc<Plugin>,
    pub(super) code: RememberedCode,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum RememberedCode {
    Module(Digest),
    OnProxy(PathBuf),
    InSpecification,
}

impl Remembered {
    pub(super) fn of(revision: &PluginRevision) -> Self {
        let code = match &revision.code {
            Code::Module(module) => RememberedCode::Module(module.digest),
            Code::OnProxy(path) => RememberedCode::OnProxy(path.clone()),
            Code::InSpecification => RememberedCode::InSpecification,
        };
        Self { plugin: revision.plugin.clone(), code }
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        match &self.code {
            RememberedCode::Module(digest) => Some(*digest),
            RememberedCode::OnProxy(_) | RememberedCode::InSpecification => None,
        }
    }

    /// The very bytes: from the store, or from where they came from at first.
    pub(super) fn module(&self) -> Option<ModuleRef> {
        Some(ModuleRef { sha256: Some(self.digest()?), ..self.plugin.module()?.clone() })
    }
}

pub(super) fn digest(code: &Code) -> Option<Digest> {
    match code {
        Code::Module(module) => Some(module.digest),
        Code::OnProxy(_) | Code::InSpecification => None,
    }
}
