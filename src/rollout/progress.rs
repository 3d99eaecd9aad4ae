//! How far one proxy has come with what it is to run: what it was told, and what it answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accepted::Accepted;
use super::blame::{Blame, blame};
use super::hunt::{Hunt, Step, Suspect};
use super::refusals::Refusals;
use crate::compile::Compiled;
use crate::model::{PluginId, ProxyFacts, Revision};
use crate::snapshot::{Extension, Identity, Part, Resource, ResourceType, Version};
use crate::xds::{Delivery, Outcome};

/// One proxy's progress. Written by the plane alone.
#[derive(Debug, Default)]
pub struct Progress {
    /// What it is to run; absent until it is decided for the first time.
    pub(super) expected: Option<Arc<Compiled>>,
    /// What it acknowledged last under each name.
    pub(super) accepted: Accepted,
    /// Refused plugin revisions, in Envoy's words.
    pub(super) refusals: Refusals,
    /// What it ran when a plugin was refused or set aside: that goes on in its place, whatever other proxies took.
    last_good: BTreeMap<PluginId, Revision>,
    /// The search for the plugin that a refusal is about.
    pub(super) hunt: Hunt,
    /// Resources that it refused, no plugin being to blame, in Envoy's words.
    pub(super) errors: BTreeMap<(ResourceType, String), Refused>,
}

#[derive(Debug)]
pub(super) struct Refused {
    pub version: Version,
    pub message: Arc<str>,
}

/// What an answer means for plugins.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Revisions that are refused by it.
    pub refused: Vec<(PluginId, Revision)>,
    /// Revisions that were refused before, and now are not.
    pub cleared: Vec<(PluginId, Revision)>,
    /// The proxy is to be served something else by now: see [`Progress::tell`].
    pub has_new_facts: bool,
}

/// Names beyond those that carry a plugin that are remembered before those without use are looked for.
const SPARE_NAMES: usize = 64;

impl Progress {
    pub fn expected(&self) -> Option<&Arc<Compiled>> {
        self.expected.as_ref()
    }

    /// From now on the proxy is to run this. Returns whether its facts are others by that.
    pub fn expect(&mut self, compiled: Arc<Compiled>) -> bool {
        let snapshot = &compiled.snapshot;
        let resolve = |name: &str| match snapshot.extensions.resolve(name)? {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(_) => None,
        };
        let names = |(resource_type, name): (ResourceType, &str)| match snapshot.all(resource_type) {
            Some(resources) => resources.contains_key(name),
            None => resolve(name).is_some(),
        };
        let is_crowded = self.accepted.len() > compiled.carriers.len() + SPARE_NAMES;
        let stays = |resource_type| resource_type == ResourceType::ExtensionConfig && !is_crowded;
        self.accepted.retain(|accepted| stays(accepted.resource_type) || names(accepted.key()));
        self.errors.retain(|name, refused| match name.0 {
            // Envoy is not sent the same again: what it said holds for as long as that is what it should run.
            ResourceType::ExtensionConfig => resolve(&name.1).is_some_and(|it| it.version == refused.version),
            _ => names((name.0, &name.1)),
        });
        let has_new_facts = !self.hunt.is_idle() && self.hunt.expect(resolve);
        self.expected = Some(compiled);
        if has_new_facts {
            self.keep_what_runs();
        }
        has_new_facts
    }

    /// Folds in an answer.
    pub fn fold(&mut self, delivery: Delivery) -> Folded {
        let resource = delivery.resource;
        match delivery.outcome {
            Outcome::Accepted => self.accept(&resource),
            Outcome::Refused { message } if resource.resource_type == ResourceType::ExtensionConfig => {
                self.refuse(&resource, &message)
            }
            Outcome::Refused { message } => {
                self.complain(&resource, message);
                Folded::default()
            }
        }
    }

    fn accept(&mut self, resource: &Resource) -> Folded {
        if !self.errors.is_empty() {
            let name = (resource.resource_type, resource.name.to_string());
            let is_extension = resource.resource_type == ResourceType::ExtensionConfig;
            if self.errors.get(&name).is_some_and(|refused| !is_extension || refused.version == resource.version) {
                self.errors.remove(&name);
            }
        }
        self.accepted.insert(resource.identity.clone());
        let mut folded = Folded::default();
        // Almost every proxy has refused nothing, and its answers are to cost nothing.
        if self.refusals.is_empty() && self.last_good.is_empty() && self.hunt.is_idle() {
            return folded;
        }
        for (plugin, revision) in resource.parts.iter().filter_map(identify) {
            // It runs: whatever it was blamed for was not about it.
            if self.refusals.remove(&plugin, revision) {
                folded.has_new_facts = true;
                folded.cleared.push((plugin.clone(), revision));
            }
            if self.last_good.get(&plugin).is_some_and(|good| *good != revision) {
                self.last_good.remove(&plugin);
                folded.has_new_facts = true;
            }
        }
        let step = self.hunt.accepted(&resource.name, |suspect| suspect.is_in(resource));
        self.take(step, folded)
    }

    fn refuse(&mut self, resource: &Resource, message: &Arc<str>) -> Folded {
        let accepted = self.accepted.get(resource.resource_type, &resource.name);
        if accepted.is_some_and(|accepted| accepted.version == resource.version) {
            // The way back after a refusal: it has taken the very same before, and runs it still. Whatever took its place
            // would replace a working plugin.
            self.complain(resource, message.clone());
            return Folded::default();
        }
        let accepted = accepted.map_or(&[][..], |accepted| &accepted.parts);
        let step = match blame(resource, accepted, message) {
            Blame::Named(part) => {
                self.hunt.named(&resource.name);
                self.suspect(part).map_or(Step::Nobody, |suspect| Step::Blamed(vec![suspect], message.clone()))
            }
            Blame::OneOf(parts) => {
                let suspects: Vec<_> = parts.into_iter().filter_map(|part| self.suspect(part)).collect();
                if suspects.iter().any(|suspect| self.is_out(suspect)) {
                    // It was sent before that was known, and is explained by it: the attempt under way goes on.
                    return Folded::default();
                }
                self.hunt.refused(resource, suspects, message)
            }
        };
        if step == Step::Nobody {
            self.complain(resource, message.clone());
        }
        self.take(step, Folded::default())
    }

    fn complain(&mut self, resource: &Resource, message: Arc<str>) {
        let name = (resource.resource_type, resource.name.to_string());
        self.errors.insert(name, Refused { version: resource.version.clone(), message });
    }

    fn take(&mut self, step: Step, mut folded: Folded) -> Folded {
        match step {
            Step::None | Step::Nobody => return folded,
            Step::Narrowed => {}
            Step::Blamed(blamed, message) => {
                let message = match &blamed[..] {
                    [_] => message,
                    // Some of them may be innocent.
                    all => format!("refused together with {} others: {message}", all.len() - 1).into(),
                };
                for Suspect { plugin, revision, .. } in blamed {
                    self.refusals.insert(plugin.clone(), revision, message.clone());
                    folded.refused.push((plugin, revision));
                }
            }
        }
        folded.has_new_facts = true;
        self.keep_what_runs();
        folded
    }

    /// Writes down what runs here of every plugin that something else is to stand in for.
    fn keep_what_runs(&mut self) {
        let aside = self.hunt.aside().map(|it| (&it.plugin, it.revision));
        let wanting: Vec<_> = self.refusals.iter().chain(aside).map(|(plugin, _)| plugin.clone()).collect();
        for plugin in wanting {
            if let Some(revision) = self.runs(&plugin) {
                self.last_good.insert(plugin, revision);
            }
        }
    }

    /// The revision of a plugin that this proxy acknowledged last.
    fn runs(&self, plugin: &PluginId) -> Option<Revision> {
        let owner = plugin.to_string();
        let parts = self.accepted.iter().flat_map(|accepted| accepted.parts.iter());
        let mut revisions =
            parts.filter(|part| *part.owner == *owner).filter_map(|part| Revision::parse(&part.revision));
        revisions.find(|revision| self.refusals.get(plugin, *revision).is_none())
    }

    /// What this proxy has shown of itself, for what it is to be served.
    pub fn tell(&self, facts: &mut ProxyFacts) {
        facts.refused = self.refusals.iter().map(|(plugin, revision)| (plugin.clone(), revision)).collect();
        facts.aside = self.hunt.aside().map(|it| (it.plugin.clone(), it.revision)).collect();
        facts.last_good = self.last_good.clone();
    }

    /// A refusal that was remembered from before the control plane restarted, and what ran in its place.
    pub fn recall_refusal(
        &mut self,
        plugin: PluginId,
        revision: Revision,
        message: Arc<str>,
        last_good: Option<Revision>,
    ) {
        self.last_good.extend(last_good.map(|good| (plugin.clone(), good)));
        self.refusals.insert(plugin, revision, message);
    }

    /// Envoy's words about a refused revision.
    pub fn refusal(&self, plugin: &PluginId, revision: Revision) -> Option<&str> {
        self.refusals.get(plugin, revision).map(|message| &**message)
    }

    /// What runs here in the place of a refused revision.
    pub fn last_good(&self, plugin: &PluginId) -> Option<Revision> {
        self.last_good.get(plugin).copied()
    }

    /// This plugin is gone. Returns whether anything was known of it.
    pub fn forget(&mut self, plugin: &PluginId) -> bool {
        self.last_good.remove(plugin).is_some() | self.refusals.forget(plugin)
    }

    /// What it acknowledged last under each name, in order. Proxies that were served the same share it.
    pub fn accepted(&self) -> &[Arc<Identity>] {
        self.accepted.iter().as_slice()
    }

    /// Whether this revision is refused or set aside already.
    fn is_out(&self, suspect: &Suspect) -> bool {
        self.refusals.get(&suspect.plugin, suspect.revision).is_some()
            || self.hunt.sets_aside(&suspect.plugin, suspect.revision).is_some()
    }

    fn suspect(&self, part: &Part) -> Option<Suspect> {
        let (plugin, revision) = identify(part)?;
        let mut carried = self.expected.iter().flat_map(|compiled| &compiled.plugins);
        let carried = carried.find(|carried| carried.plugin == plugin)?;
        let is_script = carried.run.revision().is_some_and(|revision| revision.plugin.wasm().is_none());
        Some(Suspect { plugin, revision, is_script })
    }
}

fn identify(part: &Part) -> Option<(PluginId, Revision)> {
    Some((part.owner.parse().ok()?, Revision::parse(&part.revision)?))
}
