//! Which resources carry each plugin of a kind: what has to be accepted before it counts as programmed.

use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::extensions::Catalog;
use super::plan::Plan;
use super::{Carried, Kind, Member, Run, names, size};
use crate::model::{PluginType, Position};
use crate::snapshot::{Resource, ResourceType, Version};

/// A listener that is served, with its plugins.
pub struct Served {
    pub plan: Plan,
    pub resource: Arc<Resource>,
}

/// The ECDS names of a listener, read once for all plugins.
struct Named<'a> {
    listener: &'a Served,
    chains: Vec<Chain<'a>>,
    /// Of single plugins.
    others: HashSet<&'a str>,
}

struct Chain<'a> {
    name: &'a str,
    positions: RangeInclusive<Position>,
    left_out: BTreeSet<usize>,
}

/// One per plugin of the kind, in order.
pub fn carried(kind: &Kind, served: &[Served], catalog: &Catalog) -> Vec<Carried> {
    let named: Vec<_> = served.iter().map(|listener| Named::of(listener, catalog)).collect();
    kind.plugins.iter().enumerate().map(|(index, member)| carried_by(kind, index, member, &named, catalog)).collect()
}

impl<'a> Named<'a> {
    fn of(listener: &'a Served, catalog: &Catalog) -> Self {
        let (mut chains, mut others) = (Vec::new(), HashSet::new());
        let references = listener.resource.references.iter();
        for (_, name) in references.filter(|(kind, _)| *kind == ResourceType::ExtensionConfig) {
            match names::parse_chain(name) {
                Some((of, positions)) => {
                    chains.push(Chain { name, left_out: catalog.left_out(of, &positions), positions });
                }
                None => drop(others.insert(name.as_str())),
            }
        }
        Self { listener, chains, others }
    }

    /// The chains that are where the plugin goes.
    fn chains_of(&self, member: &Member) -> impl Iterator<Item = &Chain<'a>> {
        let is_http = member.plugin.plugin_type == PluginType::Http;
        self.chains.iter().filter(move |chain| is_http && chain.positions.contains(&member.plugin.position))
    }
}

fn carried_by(kind: &Kind, index: usize, member: &Member, named: &[Named<'_>], catalog: &Catalog) -> Carried {
    let on: Vec<_> = named.iter().filter(|named| named.listener.plan.has(index)).collect();
    let own_name = member.extension_name();
    let (mut carriers, mut is_left_out) = (Vec::new(), false);
    let is_alone_on = |named: &Named<'_>| named.others.contains(own_name.as_str());
    // Where nothing of ours names it, only a static listener can.
    if kind.templates.is_empty() || on.iter().any(|named| is_alone_on(named)) {
        carriers.extend(extension(&own_name, catalog));
        is_left_out = !carriers.is_empty() && catalog.leaves_out(index);
    }
    for named in &on {
        let mut is_named = is_alone_on(named);
        for chain in named.chains_of(member) {
            is_named = true;
            carriers.extend(extension(chain.name, catalog));
            is_left_out |= chain.left_out.contains(&index);
        }
        if is_named {
            let Resource { name, version, .. } = &*named.listener.resource;
            carriers.push((ResourceType::Listener, name.clone(), version.clone()));
        }
    }
    carriers.sort();
    carriers.dedup();
    if matches!(member.run, Run::Absent) {
        (carriers, is_left_out) = (Vec::new(), false);
    }
    let run = match is_left_out {
        true => Run::TooLarge { reason: size::reason(member) },
        false => member.run.clone(),
    };
    Carried {
        plugin: member.plugin.id.clone(),
        revision: member.revision().filter(|_| !is_left_out).map(|revision| revision.revision),
        run,
        listeners: on.iter().map(|named| named.listener.resource.name.clone()).collect(),
        carriers,
    }
}

fn extension(name: &str, catalog: &Catalog) -> Option<(ResourceType, String, Version)> {
    let resource = catalog.known(name)?;
    Some((ResourceType::ExtensionConfig, name.to_owned(), resource.version.clone()))
}
