//! Which resources carry each plugin of a kind: what has to be accepted before it counts as programmed.

use std::sync::Arc;

use super::extensions::Catalog;
use super::plan::Plan;
use super::{Carried, Kind, Member, Run, names, size};
use crate::model::PluginType;
use crate::snapshot::{Resource, ResourceType, Version};

/// A listener that is served, with its plugins.
pub struct Served {
    pub plan: Plan,
    pub resource: Arc<Resource>,
}

/// One per plugin of the kind, in order.
pub fn carried(kind: &Kind, served: &[Served], catalog: &Catalog) -> Vec<Carried> {
    kind.plugins.iter().enumerate().map(|(index, member)| carried_by(kind, index, member, served, catalog)).collect()
}

fn carried_by(kind: &Kind, index: usize, member: &Member, served: &[Served], catalog: &Catalog) -> Carried {
    let on: Vec<_> = served.iter().filter(|listener| listener.plan.has(index)).collect();
    let own_name = member.extension_name();
    let mut carriers = Vec::new();
    if kind.templates.is_empty() {
        // Nothing of ours names it: only a static listener can.
        carriers.extend(extension(&own_name, catalog));
    }
    for listener in &on {
        let names: Vec<_> = names_of(&listener.resource).filter(|name| holds(name, &own_name, member)).collect();
        if names.is_empty() {
            continue;
        }
        carriers.extend(names.into_iter().filter_map(|name| extension(name, catalog)));
        let Resource { name, version, .. } = &*listener.resource;
        carriers.push((ResourceType::Listener, name.clone(), version.clone()));
    }
    carriers.sort();
    carriers.dedup();
    if matches!(member.run, Run::Absent) {
        carriers.clear();
    }
    let is_carrier = |(kind, name, _): &(ResourceType, String, Version)| {
        *kind == ResourceType::ExtensionConfig && catalog.leaves_out(name, index)
    };
    let run = match carriers.iter().any(is_carrier) {
        true => Run::TooLarge { reason: size::reason(member) },
        false => member.run.clone(),
    };
    let revision = match &run {
        Run::Revision(revision) | Run::LastGood(revision, _) => Some(revision.revision),
        Run::StandIn { .. } | Run::Unsupported { .. } | Run::TooLarge { .. } | Run::Disabled | Run::Absent => None,
    };
    Carried {
        plugin: member.plugin.id.clone(),
        revision,
        run,
        listeners: on.iter().map(|listener| listener.resource.name.clone()).collect(),
        carriers,
    }
}

fn names_of(listener: &Resource) -> impl Iterator<Item = &str> {
    let extensions = listener.references.iter().filter(|(kind, _)| *kind == ResourceType::ExtensionConfig);
    extensions.map(|(_, name)| name.as_str())
}

/// Whether an ECDS resource of a listener is where the plugin goes.
fn holds(name: &str, own_name: &str, member: &Member) -> bool {
    let is_http = member.plugin.plugin_type == PluginType::Http;
    let in_chain = |name| names::parse_chain(name).is_some_and(|(_, range)| range.contains(&member.plugin.position));
    name == own_name || (is_http && in_chain(name))
}

fn extension(name: &str, catalog: &Catalog) -> Option<(ResourceType, String, Version)> {
    let resource = catalog.known(name)?;
    Some((ResourceType::ExtensionConfig, name.to_owned(), resource.version.clone()))
}
