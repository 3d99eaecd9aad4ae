//! How far one proxy has come with what it is to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blame::blame;
use super::status::{PluginState, StateKind};
use crate::compile::{Carried, Compiled, DISABLED, Run};
use crate::model::{PluginId, PluginType, Revision};
use crate::snapshot::{Resource, ResourceType};
use crate::xds::{Delivery, Outcome};

/// One proxy's progress. Written by the plane alone.
#[derive(Debug, Default)]
pub struct Progress {
    /// What it is to run; absent until it is decided for the first time.
    expected: Option<Arc<Compiled>>,
    accepted: BTreeMap<(ResourceType, String), Arc<Resource>>,
    /// Refused plugin revisions, in Envoy's words.
    refusals: BTreeMap<(PluginId, Revision), String>,
    /// Listeners, clusters, routes and endpoints that it refused, in Envoy's words.
    errors: BTreeMap<(ResourceType, String), String>,
}

impl Progress {
    pub fn expected(&self) -> Option<&Arc<Compiled>> {
        self.expected.as_ref()
    }

    /// From now on the proxy is to run this.
    pub fn expect(&mut self, compiled: Arc<Compiled>) {
        let names = |name: &(ResourceType, String)| match compiled.snapshot.all(name.0) {
            Some(resources) => resources.contains_key(&name.1),
            None => true,
        };
        self.accepted.retain(|name, _| names(name));
        self.errors.retain(|name, _| names(name));
        self.expected = Some(compiled);
    }

    /// Folds in an answer; returns the plugin revisions that are refused by it.
    pub fn fold(&mut self, delivery: Delivery) -> Vec<(PluginId, Revision)> {
        let resource = delivery.resource;
        let name = (resource.resource_type, resource.name.clone());
        match delivery.outcome {
            Outcome::Accepted => {
                self.errors.remove(&name);
                self.accepted.insert(name, resource);
                Vec::new()
            }
            Outcome::Refused { message } if resource.resource_type == ResourceType::ExtensionConfig => {
                let accepted = self.accepted.get(&name).map(Arc::as_ref);
                let blamed = blame(&resource, accepted, &message);
                let refused: Vec<_> = blamed.into_iter().filter_map(|part| self.identify(part)).collect();
                for revision in &refused {
                    self.refusals.insert(revision.clone(), message.clone());
                }
                refused
            }
            Outcome::Refused { message } => {
                self.errors.insert(name, message);
                Vec::new()
            }
        }
    }

    /// A refusal that was remembered from before the control plane restarted.
    pub fn recall_refusal(&mut self, plugin: PluginId, revision: Revision, message: String) {
        self.refusals.insert((plugin, revision), message);
    }

    /// Envoy's words about a refused revision.
    pub fn refusal(&self, plugin: &PluginId, revision: Revision) -> Option<&str> {
        self.refusals.get(&(plugin.clone(), revision)).map(String::as_str)
    }

    /// What is wrong apart from plugins, such as `listener in-8080: cannot bind …`.
    pub fn errors(&self) -> Vec<String> {
        let error = |((resource_type, name), message): (&(ResourceType, String), &String)| {
            format!("{} {name}: {message}", type_word(*resource_type))
        };
        self.errors.iter().map(error).collect()
    }

    /// Whether every resource that carries a plugin here was acknowledged.
    pub fn is_settled(&self) -> bool {
        let Some(compiled) = &self.expected else { return true };
        // Asked after every answer: both are in order, so that one walk finds all.
        let mut accepted = self.accepted.iter();
        compiled.carriers.iter().all(|(carrier, version)| {
            accepted
                .find(|(name, _)| *name >= carrier)
                .is_some_and(|(name, resource)| name == carrier && resource.version == *version)
        })
    }

    /// The state of a plugin that is to run here. `desired` is the revision that the operator wants, where it is known.
    pub fn state(&self, carried: &Carried, desired: Option<Revision>) -> PluginState {
        let refused = desired.and_then(|desired| self.refusal(&carried.plugin, desired));
        let (kind, message) = match &carried.run {
            Run::Disabled => (StateKind::StandIn, DISABLED.to_owned()),
            _ if refused.is_some() => (StateKind::Rejected, refused.unwrap_or_default().to_owned()),
            Run::Unsupported { reason } => (StateKind::Unsupported, reason.clone()),
            Run::StandIn { reason } => (StateKind::StandIn, reason.clone()),
            Run::Absent => (StateKind::NotLoaded, String::new()),
            Run::LastGood(_, Some(reason)) => (StateKind::Unsupported, reason.clone()),
            Run::Revision(_) | Run::LastGood(..) if self.holds(carried) => (StateKind::Programmed, String::new()),
            Run::Revision(_) | Run::LastGood(..) => (StateKind::Pending, self.awaited(carried)),
        };
        PluginState { kind, revision: carried.revision.filter(|_| self.holds(carried)), message }
    }

    fn identify(&self, part: &crate::snapshot::Part) -> Option<(PluginId, Revision)> {
        let mut carried = self.expected.iter().flat_map(|compiled| &compiled.plugins);
        let carried = carried.find(|carried| carried.plugin.to_string() == *part.owner)?;
        Some((carried.plugin.clone(), Revision::parse(&part.revision)?))
    }

    fn holds(&self, carried: &Carried) -> bool {
        self.holds_all(carried) || self.holds_alone(carried)
    }

    /// Listeners of the proxy's own name the plugin by itself: a proxy that takes no listeners from here does not
    /// wait for those that a template describes.
    fn holds_alone(&self, carried: &Carried) -> bool {
        let takes_listeners = self.accepted.keys().any(|(resource_type, _)| *resource_type == ResourceType::Listener);
        let held = [PluginType::Http, PluginType::Network].map(|plugin_type| {
            self.accepted.get(&(ResourceType::ExtensionConfig, carried.plugin.extension_name(plugin_type)))
        });
        let runs = |resource: &&Arc<Resource>| {
            let revision = carried.revision.map(|revision| revision.to_string());
            resource.parts.iter().any(|part| Some(&*part.revision) == revision.as_deref())
        };
        !takes_listeners && held.iter().flatten().any(runs)
    }

    fn holds_all(&self, carried: &Carried) -> bool {
        carried.carriers.iter().all(|(resource_type, name, version)| {
            let accepted = self.accepted.get(&(*resource_type, name.clone()));
            accepted.is_some_and(|resource| resource.version == *version)
        })
    }

    /// What is not acknowledged yet, and Envoy's words where it refused it.
    fn awaited(&self, carried: &Carried) -> String {
        let missing = carried.carriers.iter().find(|(resource_type, name, version)| {
            let accepted = self.accepted.get(&(*resource_type, name.clone()));
            accepted.is_none_or(|resource| resource.version != *version)
        });
        let Some((resource_type, name, _)) = missing else { return String::new() };
        match self.errors.get(&(*resource_type, name.clone())) {
            Some(error) => format!("{} {name} was refused: {error}", type_word(*resource_type)),
            None => format!("{} {name} is not acknowledged yet", type_word(*resource_type)),
        }
    }
}

fn type_word(resource_type: ResourceType) -> &'static str {
    match resource_type {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "endpoints of",
        ResourceType::ExtensionConfig => "extension config",
        ResourceType::Listener => "listener",
        ResourceType::Route => "route",
    }
}
