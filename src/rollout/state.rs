//! What became of a proxy's plugins, in the words of status.

use std::sync::Arc;

use super::progress::{Progress, Refused};
use super::status::{PluginState, StateKind};
use crate::compile::{Carried, DISABLED, Run};
use crate::model::{PluginType, Revision};
use crate::snapshot::{Identity, ResourceType};

impl Progress {
    /// What is wrong apart from plugins, such as `listener in-8080: cannot bind …`.
    pub fn errors(&self) -> Vec<String> {
        let error = |((resource_type, name), refused): (&(ResourceType, String), &Refused)| {
            format!("{} {name}: {}", resource_type.word(), refused.message)
        };
        self.errors.iter().map(error).collect()
    }

    /// Whether every resource that carries a plugin here was acknowledged.
    pub fn is_settled(&self) -> bool {
        let Some(compiled) = &self.expected else { return true };
        // Asked after every answer: both are in order, so that one walk finds all, and almost all by their address.
        let mut accepted = self.accepted.iter();
        compiled.carriers.iter().all(|carrier| {
            accepted
                .find(|resource| Arc::ptr_eq(resource, carrier) || resource.key() >= carrier.key())
                .is_some_and(|resource| Arc::ptr_eq(resource, carrier) || resource.is_same_version(carrier))
        })
    }

    /// The state of a plugin that is to run here. `desired` is the revision that the operator wants, where it is known.
    pub fn state(&self, carried: &Carried, desired: Option<Revision>) -> PluginState {
        let refused = desired.and_then(|desired| self.refusal(&carried.plugin, desired));
        let aside = desired.and_then(|desired| self.hunt.sets_aside(&carried.plugin, desired));
        let (kind, message) = match &carried.run {
            Run::Disabled => (StateKind::StandIn, DISABLED.to_owned()),
            _ if refused.is_some() => (StateKind::Rejected, refused.unwrap_or_default().to_owned()),
            _ if aside.is_some() => {
                let message = aside.unwrap_or_default();
                (StateKind::Pending, format!("waits while it is found out which plugin was refused: {message}"))
            }
            Run::Unsupported { reason } => (StateKind::Unsupported, reason.clone()),
            Run::StandIn { reason } => (StateKind::StandIn, reason.clone()),
            Run::TooLarge { reason } => (StateKind::NotLoaded, reason.clone()),
            Run::Absent => (StateKind::NotLoaded, String::new()),
            Run::LastGood(_, Some(reason)) => (StateKind::Unsupported, reason.clone()),
            Run::Revision(_) | Run::LastGood(..) if self.holds(carried) => (StateKind::Programmed, String::new()),
            Run::Revision(_) | Run::LastGood(..) => (StateKind::Pending, self.awaited(carried)),
        };
        PluginState { kind, revision: carried.revision.filter(|_| self.holds(carried)), message }
    }

    fn holds(&self, carried: &Carried) -> bool {
        self.holds_all(carried) || self.holds_alone(carried)
    }

    /// Listeners of the proxy's own name the plugin by itself: a proxy that takes no listeners from here does not
    /// wait for those that a template describes.
    fn holds_alone(&self, carried: &Carried) -> bool {
        let takes_listeners = self.accepted.iter().any(|resource| resource.resource_type == ResourceType::Listener);
        let held = [PluginType::Http, PluginType::Network].map(|plugin_type| {
            self.accepted.get(ResourceType::ExtensionConfig, &carried.plugin.extension_name(plugin_type))
        });
        let runs = |resource: &&Arc<Identity>| {
            let revision = carried.revision.map(|revision| revision.to_string());
            resource.parts.iter().any(|part| Some(&*part.revision) == revision.as_deref())
        };
        !takes_listeners && held.iter().flatten().any(runs)
    }

    fn holds_all(&self, carried: &Carried) -> bool {
        carried.carriers.iter().all(|carrier| self.has_accepted(carrier))
    }

    fn has_accepted(&self, carrier: &Identity) -> bool {
        let accepted = self.accepted.get(carrier.resource_type, &carrier.name);
        accepted.is_some_and(|accepted| accepted.is_same_version(carrier))
    }

    /// What is not acknowledged yet, and Envoy's words where it refused it.
    fn awaited(&self, carried: &Carried) -> String {
        let missing = carried.carriers.iter().find(|carrier| !self.has_accepted(carrier));
        let Some(Identity { resource_type, name, .. }) = missing.map(|missing| &**missing) else {
            return String::new();
        };
        match self.errors.get(&(*resource_type, name.to_string())) {
            Some(Refused { message, .. }) => format!("{} {name} was refused: {message}", resource_type.word()),
            None => format!("{} {name} is not acknowledged yet", resource_type.word()),
        }
    }
}
