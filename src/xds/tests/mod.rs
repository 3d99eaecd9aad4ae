//! The protocol, by theme: state of the world, delta, order, refusals, reconnects, and all of it at random.
//!
//! The builders below make snapshots of a few words, and [`Client`] plays the Envoy of one stream: it applies what it is
//! sent only when it answers, so that a test decides who is late.

mod changed;
mod client;
mod delta;
mod moves;
mod order;
mod random;
mod reconnect;
mod refusal;
mod sotw;
mod staging;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Client;

use super::Protocol;
use crate::model::Digest;
use crate::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};
use crate::snapshot::{Attempt, Extension, Extensions, Part, Resource, ResourceType, Rope, STAGING, Snapshot, Version};

const BOTH: [Protocol; 2] = [Protocol::Sotw, Protocol::Delta];

/// A resource whose version reads as it is written.
fn resource(resource_type: ResourceType, name: &str, version: &str) -> Resource {
    Resource::new(resource_type, name, Version::from_client(version), Rope::new())
}

fn cluster(name: &str, version: &str) -> Resource {
    resource(Cluster, name, version)
}

fn listener(name: &str, version: &str) -> Resource {
    resource(Listener, name, version)
}

fn route(name: &str, version: &str) -> Resource {
    resource(Route, name, version)
}

/// An ECDS resource whose refusal would surprise: it has a part of its own.
fn plugin(name: &str, version: &str) -> Resource {
    chain(name, version, &[name])
}

/// An ECDS resource made of plugins.
fn chain(name: &str, version: &str, plugins: &[&str]) -> Resource {
    let part = |owner: &&str| Part { owner: (*owner).into(), revision: version.into() };
    let parts: Vec<_> = plugins.iter().map(part).collect();
    Resource::of_parts(ExtensionConfig, name, Version::from_client(version), parts, Rope::new())
}

impl Resource {
    fn using(mut self, resource_type: ResourceType, name: &str) -> Self {
        self.references.push((resource_type, name.into()));
        self
    }

    /// Names these modules by digest.
    fn fetching(mut self, modules: &[&str]) -> Self {
        self.fetched = modules.iter().map(|module| Digest::of(module.as_bytes())).collect();
        self
    }

    /// A part of it is not to be had yet.
    fn partial(mut self) -> Self {
        self.is_partial = true;
        self
    }

    fn with_stand_in(mut self) -> Self {
        self.stand_in = Some(Arc::new(resource(self.resource_type, &self.name, "stand-in")));
        self
    }
}

/// Knows some names; lets everything pass for the others, but is silent for those that begin with `foreign`. Inline there
/// is no room for plugins that begin with `large`.
#[derive(Debug)]
struct Names(BTreeMap<String, Arc<Resource>>);

impl Extensions for Names {
    fn resolve(&self, name: &str) -> Option<Extension> {
        if name.starts_with("foreign") {
            return None;
        }
        if name == STAGING {
            return Some(Extension::Known(Arc::new(resource(ExtensionConfig, name, "nothing"))));
        }
        let pass = || Extension::PassThrough(Arc::new(resource(ExtensionConfig, name, "pass")));
        Some(self.0.get(name).map_or_else(pass, |known| Extension::Known(known.clone())))
    }

    fn changed(&self, now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        Some(changed(self.0.keys().map(String::as_str).chain([STAGING]), self, &**now))
    }

    fn inline(&self, name: &str) -> Option<Arc<Resource>> {
        let known = self.0.get(name)?;
        let fits = |part: &&Part| !part.owner.starts_with("large");
        let parts: Vec<_> = known.parts.iter().filter(fits).cloned().collect();
        let left_out = if parts.len() < known.parts.len() { " without the large" } else { "" };
        let version = Version::from_client(&format!("{}{left_out}", known.version));
        Some(Arc::new(Resource::of_parts(ExtensionConfig, name, version, parts, Rope::new())))
    }

    fn staged(&self, attempt: &Attempt) -> Option<Arc<Resource>> {
        let version = format!("{:.4}#{}", attempt.digest.to_string(), attempt.number);
        Some(Arc::new(resource(ExtensionConfig, STAGING, &version)))
    }
}

/// Names that the one knows and the other says something else of.
fn changed<'a>(
    names: impl IntoIterator<Item = &'a str>,
    before: &dyn Extensions,
    now: &dyn Extensions,
) -> Arc<[Arc<str>]> {
    let differs = |name: &&str| match before.resolve(name) {
        Some(Extension::Known(known)) => !now.still_says(&known),
        _ => false,
    };
    names.into_iter().filter(differs).map(Into::into).collect()
}

/// The same, but without account of what it knows: every change has all names looked at.
#[derive(Debug)]
struct Unaccounted(Arc<dyn Extensions>);

impl Extensions for Unaccounted {
    fn resolve(&self, name: &str) -> Option<Extension> {
        self.0.resolve(name)
    }

    fn resolve_with(&self, name: &str, owners: &[&str]) -> Option<Arc<Resource>> {
        self.0.resolve_with(name, owners)
    }

    fn inline(&self, name: &str) -> Option<Arc<Resource>> {
        self.0.inline(name)
    }

    fn staged(&self, attempt: &Attempt) -> Option<Arc<Resource>> {
        self.0.staged(attempt)
    }
}

fn unaccounted(snapshot: Snapshot) -> Snapshot {
    Snapshot { extensions: Arc::new(Unaccounted(snapshot.extensions)), ..snapshot }
}

/// Nothing of everything.
pub fn empty_snapshot() -> Snapshot {
    snapshot([])
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    let mut by_type: BTreeMap<ResourceType, BTreeMap<String, Arc<Resource>>> = BTreeMap::new();
    for resource in resources {
        by_type.entry(resource.resource_type).or_default().insert(resource.name.to_string(), Arc::new(resource));
    }
    let mut take = |resource_type| by_type.remove(&resource_type).unwrap_or_default();
    Snapshot {
        listeners: take(Listener),
        clusters: take(Cluster),
        routes: take(Route),
        endpoints: take(Endpoint),
        extensions: Arc::new(Names(take(ExtensionConfig))),
    }
}
