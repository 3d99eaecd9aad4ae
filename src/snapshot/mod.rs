//! Finished resources, ready to be served.
//!
//! Comes in: encoded resources. Goes out: the same, by type and name, with versions that are hashes of content.
//! Invariant: immutable once built; nothing here knows what a plugin is.

mod resource;
mod rope;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::Digest;

pub use resource::{Identity, Part, Resource, ResourceType};
pub use rope::Rope;
pub use version::Version;

/// The ECDS resource for a name.
#[derive(Clone, Debug)]
pub enum Extension {
    /// The name applies: this is its content.
    Known(Arc<Resource>),
    /// The name is well formed, but nothing stands behind it (any more): a filter that lets everything pass.
    PassThrough(Arc<Resource>),
}

/// The listener that is bound to no port, and its one ECDS name: modules come into a proxy's code cache through it
/// before anything in the traffic's way names them (design, section 5, rule 13).
pub const STAGING: &str = "wasmplane/staging";

/// One try to bring a module into a proxy's code cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub digest: Digest,
    /// Tells the module server which stream fetches.
    pub token: u64,
    /// Envoy remembers the hash of what it refused: each attempt has bytes of its own.
    pub number: u32,
}

/// Answers for ECDS names, which a proxy may subscribe to without any listener of ours.
pub trait Extensions: Send + Sync + fmt::Debug {
    /// `None` for a name that is malformed or of a foreign namespace: those get silence.
    fn resolve(&self, name: &str) -> Option<Extension>;

    /// Whether a client that holds this resource has nothing to be told of its name.
    fn still_says(&self, held: &Resource) -> bool {
        match self.resolve(&held.name) {
            Some(Extension::Known(known)) => known.version == held.version && known.is_partial == held.is_partial,
            Some(Extension::PassThrough(_)) | None => false,
        }
    }

    /// The names that were found to be known here until now, and that `now` says something else of. `None` where no
    /// account of them is kept.
    fn changed(&self, _now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        None
    }

    /// The resource of `name` with the parts of these owners beside its own, for as long as they must not leave it yet.
    /// `None` where there is no such thing.
    fn resolve_with(&self, _name: &str, _owners: &[&str]) -> Option<Arc<Resource>> {
        None
    }

    /// The resource of `name` with all its modules inside, as far as they fit: for a proxy that cannot fetch, or not
    /// yet. `None` where there is no such thing.
    fn inline(&self, _name: &str) -> Option<Arc<Resource>> {
        None
    }

    /// What the name [`STAGING`] holds during the attempt. `None` for a module of no resource here.
    fn staged(&self, _attempt: &Attempt) -> Option<Arc<Resource>> {
        None
    }
}

/// All that one kind of proxy is served.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub listeners: BTreeMap<String, Arc<Resource>>,
    pub clusters: BTreeMap<String, Arc<Resource>>,
    pub routes: BTreeMap<String, Arc<Resource>>,
    pub endpoints: BTreeMap<String, Arc<Resource>>,
    pub extensions: Arc<dyn Extensions>,
}

impl Snapshot {
    /// The resources of a type that can be enumerated; `None` for ECDS, whose names are resolved one by one.
    pub fn all(&self, resource_type: ResourceType) -> Option<&BTreeMap<String, Arc<Resource>>> {
        match resource_type {
            ResourceType::Listener => Some(&self.listeners),
            ResourceType::Cluster => Some(&self.clusters),
            ResourceType::Route => Some(&self.routes),
            ResourceType::Endpoint => Some(&self.endpoints),
            ResourceType::ExtensionConfig => None,
        }
    }

    /// Whether a client of `other` has nothing to be told of this type, which can be enumerated.
    pub fn has_same(&self, resource_type: ResourceType, other: &Self) -> bool {
        let (Some(own), Some(other)) = (self.all(resource_type), other.all(resource_type)) else { return false };
        let same = |(own, other): (&Arc<Resource>, &Arc<Resource>)| {
            own.name == other.name && own.version == other.version && own.is_partial == other.is_partial
        };
        own.len() == other.len() && own.values().zip(other.values()).all(same)
    }
}
