//! What a change of manifests would touch. Pure: nothing is fetched and nothing is changed.
//!
//! Both sides are compiled as if every module were ready and lay at its address, so that another address, checksum or
//! configuration is a change, and a new image under an old tag is not.

use std::collections::BTreeMap;

use super::admin::Running;
use super::explain::fault;
use super::plugin_fields::{Field, fields};
use super::reconcile::Reconciler;
use super::view::view_mode;
use crate::compile::{Change, Compiled, Difference, Mode, compile, difference, select_offline};
use crate::model::{Plugin, PluginId, Proxy};
use crate::protobuf::admin;
use crate::snapshot::ResourceType;
use crate::sources::Loaded;

/// A proxy to be looked at, or several that agree in all that decides.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Ids of those that are connected.
    pub ids: Vec<String>,
    pub proxy: Proxy,
}

impl Reconciler {
    /// What runs now, and on whom.
    pub fn subjects(&self) -> Running {
        let mut subjects: BTreeMap<_, Subject> = BTreeMap::new();
        for (_, connected) in self.proxies.iter() {
            let Proxy { namespace, labels, version, capabilities, .. } = &connected.proxy;
            let like = (namespace.clone(), labels.clone(), *version, *capabilities);
            let new = || Subject { ids: Vec::new(), proxy: connected.proxy.clone() };
            subjects.entry(like).or_insert_with(new).ids.push(connected.id.clone());
        }
        Running {
            root_namespace: self.root_namespace.clone(),
            loaded: self.loaded.clone(),
            subjects: subjects.into_values().collect(),
        }
    }
}

/// Compares `old` with `new` for each of `subjects`; those of one kind before and after are told together.
pub fn diff(
    old: &Loaded,
    new: &Loaded,
    subjects: &[Subject],
    root_namespace: &str,
    show_config: bool,
) -> admin::DiffManifestsResponse {
    let new = &with_kept(old, new);
    let select = |loaded: &Loaded, proxy: &Proxy| {
        select_offline(proxy, root_namespace, loaded.plugins.values(), loaded.templates.values())
    };
    let mut kinds: BTreeMap<_, (Proxy, Vec<String>, Difference)> = BTreeMap::new();
    let mut compared = 0;
    for subject in subjects {
        let (before, after) = (select(old, &subject.proxy), select(new, &subject.proxy));
        let is_empty = |kind: &crate::compile::Kind| kind.templates.is_empty() && kind.plugins.is_empty();
        if subject.ids.is_empty() && is_empty(&before) && is_empty(&after) {
            continue;
        }
        let keys = (before.key().0, after.key().0);
        let is_new = !kinds.contains_key(&keys);
        compared += if subject.ids.is_empty() { u32::from(is_new) } else { count(subject.ids.len()) };
        let kind = kinds.entry(keys).or_insert_with(|| {
            let difference = compared_as(&compile(&before), || compile(&after), before.key() == after.key());
            (subject.proxy.clone(), Vec::new(), difference)
        });
        kind.1.extend(subject.ids.iter().cloned());
    }
    let mut proxies: Vec<_> = kinds
        .into_values()
        .filter(|(_, _, difference)| !difference.resources.is_empty())
        .map(|(proxy, ids, difference)| view(&proxy, ids, &difference))
        .collect();
    proxies.sort_by(|a, b| (&a.namespace, a.labels.len(), &a.ids).cmp(&(&b.namespace, b.labels.len(), &b.ids)));
    admin::DiffManifestsResponse {
        proxies,
        manifests: manifests(old, new, show_config),
        rejected: new.faults.iter().map(fault).collect(),
        warnings: Vec::new(),
        compared,
    }
}

fn compared_as(before: &Compiled, after: impl FnOnce() -> Compiled, is_same: bool) -> Difference {
    if is_same { Difference::default() } else { difference(before, &after()) }
}

/// What is refused stays as it was; where a whole file is broken nobody knows what it holds, so nothing is taken away.
fn with_kept(old: &Loaded, new: &Loaded) -> Loaded {
    let mut kept = new.clone();
    let is_kept = |resource: &str, id: Option<&PluginId>| {
        new.faults.iter().any(|fault| match &fault.plugin {
            Some(plugin) => Some(plugin) == id,
            None => fault.resource.is_empty() || fault.resource == resource,
        })
    };
    for (id, plugin) in old.plugins.iter().filter(|(id, _)| !new.plugins.contains_key(*id)) {
        if is_kept("", Some(id)) {
            kept.plugins.insert(id.clone(), plugin.clone());
        }
    }
    for (id, template) in old.templates.iter().filter(|(id, _)| !new.templates.contains_key(*id)) {
        if is_kept(&format!("ProxyTemplate {id}"), None) {
            kept.templates.insert(id.clone(), template.clone());
        }
    }
    kept
}

fn view(proxy: &Proxy, mut ids: Vec<String>, difference: &Difference) -> admin::ProxyDiff {
    ids.sort();
    let resource = |((resource_type, name), change): (&(ResourceType, String), &Change)| admin::ResourceDiff {
        r#type: resource_type.word().into(),
        name: name.clone(),
        change: view_change(*change).into(),
    };
    admin::ProxyDiff {
        ids,
        namespace: proxy.namespace.clone(),
        labels: proxy.labels.clone().into_iter().collect(),
        envoy_version: proxy.version.map(|version| version.to_string()).unwrap_or_default(),
        mode: view_mode(Mode::of(proxy.capabilities)).into(),
        listeners: difference.listeners.iter().cloned().collect(),
        drains: difference.drains.iter().cloned().collect(),
        resources: difference.resources.iter().map(resource).collect(),
    }
}

/// Plugins first, then templates, each by id.
fn manifests(old: &Loaded, new: &Loaded, show_config: bool) -> Vec<admin::ManifestDiff> {
    let kind = |id: &PluginId| format!("{} {}/{}", id.kind.kind(), id.namespace, id.name);
    let plugins = both(&old.plugins, &new.plugins).into_iter().map(|(id, change)| {
        let states = old.plugins.get(id).zip(new.plugins.get(id));
        let fields = states.map(|(old, new)| changed_fields(old, new, show_config)).unwrap_or_default();
        admin::ManifestDiff { resource: kind(id), change: view_change(change).into(), fields }
    });
    let templates = both(&old.templates, &new.templates).into_iter().map(|(id, change)| admin::ManifestDiff {
        resource: format!("ProxyTemplate {id}"),
        change: view_change(change).into(),
        fields: Vec::new(),
    });
    plugins.chain(templates).collect()
}

fn both<'a, K: Ord, V: PartialEq>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> BTreeMap<&'a K, Change> {
    let gone = old.iter().filter_map(|(id, old)| match new.get(id) {
        None => Some((id, Change::Removed)),
        Some(new) if new != old => Some((id, Change::Changed)),
        Some(_) => None,
    });
    let come = new.keys().filter(|id| !old.contains_key(id)).map(|id| (id, Change::Added));
    gone.chain(come).collect()
}

fn changed_fields(old: &Plugin, new: &Plugin, show_config: bool) -> Vec<admin::FieldDiff> {
    let shown = |field: Field| match field.is_private && !show_config && !field.text.is_empty() {
        true => "(hidden)".to_owned(),
        false => field.text,
    };
    let pairs = fields(old).into_iter().zip(fields(new)).filter(|(old, new)| old != new);
    pairs.map(|(old, new)| admin::FieldDiff { field: old.name.into(), old: shown(old), new: shown(new) }).collect()
}

fn view_change(change: Change) -> admin::Change {
    match change {
        Change::Added => admin::Change::Added,
        Change::Changed => admin::Change::Changed,
        Change::Removed => admin::Change::Removed,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
