//! Which resources carry each plugin of a kind: what has to be accepted before it counts as programmed.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::extensions::Catalog;
use super::plan::Plan;
use super::size::Misfit;
use super::{Carried, Kind, Member, Run, names, size};
use crate::model::{PluginType, Position};
use crate::snapshot::{Identity, Resource, ResourceType};

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
    misfits: BTreeMap<usize, Misfit>,
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
                    chains.push(Chain { name, misfits: catalog.misfits(of, &positions), positions });
                }
                None => drop(others.insert(&**name)),
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
    let (mut carriers, mut misfit) = (Vec::new(), None);
    let is_alone_on = |named: &Named<'_>| named.others.contains(own_name.as_str());
    // Where nothing of ours names it, only a static listener can.
    if kind.templates.is_empty() || on.iter().any(|named| is_alone_on(named)) {
        carriers.extend(extension(&own_name, catalog));
        misfit = catalog.misfit(index).filter(|_| !carriers.is_empty());
    }
    for named in &on {
        let mut is_named = is_alone_on(named);
        for chain in named.chains_of(member) {
            is_named = true;
            carriers.extend(extension(chain.name, catalog));
            misfit = misfit.or_else(|| chain.misfits.get(&index).cloned());
        }
        if is_named {
            carriers.push(named.listener.resource.identity.clone());
        }
    }
    carriers.sort_by(|one: &Arc<Identity>, other| one.key().cmp(&other.key()));
    carriers.dedup();
    if matches!(member.run, Run::Absent) {
        (carriers, misfit) = (Vec::new(), None);
    }
    let run = match &misfit {
        Some(misfit) => Run::TooLarge { reason: size::reason(member, misfit) },
        None => member.run.clone(),
    };
    let revision = match misfit {
        None => member.revision().map(|revision| revision.revision),
        Some(Misfit::Before(revision)) => Some(revision.revision),
        Some(Misfit::LeftOut) => None,
    };
    Carried {
        plugin: member.plugin.id.clone(),
        revision,
        run,
        listeners: on.iter().map(|named| named.listener.resource.name.to_string()).collect(),
        carriers,
    }
}

fn extension(name: &str, catalog: &Catalog) -> Option<Arc<Identity>> {
    Some(catalog.known(name)?.identity.clone())
}
