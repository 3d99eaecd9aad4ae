//! What a change would do to the proxies of one kind: what is served before and after it, compared by version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Compiled;
use crate::snapshot::{Extension, Resource, ResourceType, Snapshot, Version};

/// How a resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub resources: BTreeMap<(ResourceType, String), Change>,
    /// Listeners whose behaviour changes: they themselves, or something that they refer to.
    pub listeners: BTreeSet<String>,
    /// Those of them that drain: another version of the listener itself, or none any more.
    pub drains: BTreeSet<String>,
}

/// Compares what a kind of proxy is served with what it would be.
pub fn difference(old: &Compiled, new: &Compiled) -> Difference {
    let (before, after) = (versions(old), versions(new));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let changes = names.into_iter().filter_map(|name| {
        let change = match (before.get(&name), after.get(&name)) {
            (Some(before), Some(after)) if before == after => return None,
            (Some(_), Some(_)) => Change::Changed,
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
        };
        Some((name, change))
    });
    let resources: BTreeMap<_, _> = changes.collect();
    let listeners = old.snapshot.listeners.keys().chain(new.snapshot.listeners.keys());
    let is_touched = |name: &&String| {
        [&old.snapshot, &new.snapshot].iter().any(|snapshot| {
            let reached = reach(snapshot, name);
            reached.iter().any(|resource| resources.contains_key(resource))
        })
    };
    let drains = |(name, change): (&(ResourceType, String), &Change)| {
        let is_drained = name.0 == ResourceType::Listener && *change != Change::Added;
        is_drained.then(|| name.1.clone())
    };
    Difference {
        listeners: listeners.filter(is_touched).cloned().collect(),
        drains: resources.iter().filter_map(drains).collect(),
        resources,
    }
}

/// Everything that is served and asked for, with its version.
fn versions(compiled: &Compiled) -> BTreeMap<(ResourceType, String), Version> {
    let snapshot = &compiled.snapshot;
    let types = [ResourceType::Listener, ResourceType::Route, ResourceType::Cluster, ResourceType::Endpoint];
    let all = types.into_iter().filter_map(|resource_type| Some((resource_type, snapshot.all(resource_type)?)));
    let mut versions: BTreeMap<_, _> = all
        .flat_map(|(resource_type, resources)| resources.iter().map(move |(name, it)| (resource_type, name, it)))
        .map(|(resource_type, name, resource)| ((resource_type, name.clone()), resource.version.clone()))
        .collect();
    let named = snapshot.listeners.values().flat_map(|listener| &listener.references);
    let named = named.map(|(of, name)| (*of, name));
    // Without a template only a static listener can name a plugin.
    let carriers = compiled.plugins.iter().flat_map(|carried| &carried.carriers);
    let carriers = carriers.map(|carrier| (carrier.resource_type, &carrier.name));
    for (resource_type, name) in named.chain(carriers).filter(|(it, _)| *it == ResourceType::ExtensionConfig) {
        if let Some(resource) = extension(snapshot, name) {
            versions.insert((resource_type, name.to_string()), resource.version.clone());
        }
    }
    versions
}

fn extension(snapshot: &Snapshot, name: &str) -> Option<Arc<Resource>> {
    match snapshot.extensions.resolve(name)? {
        Extension::Known(resource) | Extension::PassThrough(resource) => Some(resource),
    }
}

/// A listener and all that it refers to, directly or not.
fn reach(snapshot: &Snapshot, listener: &str) -> BTreeSet<(ResourceType, String)> {
    let mut reached = BTreeSet::new();
    let mut next = vec![(ResourceType::Listener, listener.to_owned())];
    while let Some(name) = next.pop() {
        if let Some(resource) = snapshot.all(name.0).and_then(|all| all.get(&name.1)) {
            let references = resource.references.iter().map(|(of, name)| (*of, name.to_string()));
            next.extend(references.filter(|it| !reached.contains(it)));
        }
        reached.insert(name);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::compile::fixtures::{kind, listener, revision, template};
    use crate::model::{Capabilities, ListenerProtocol, PluginRevision, ProxyTemplate};

    fn compiled(chain: bool, ports: &[u16], plugins: Vec<Arc<PluginRevision>>) -> Compiled {
        let listeners = ports.iter().map(|port| listener(&format!("in-{port}"), *port, ListenerProtocol::Http));
        let mut kind = kind(vec![ProxyTemplate { listeners: listeners.collect(), ..template("shop/web") }], plugins);
        kind.capabilities = Capabilities { chain, wasm: true };
        compile(&kind)
    }

    fn told(difference: &Difference) -> Vec<String> {
        difference.resources.iter().map(|((it, name), change)| format!("{change:?} {it:?} {name}")).collect()
    }

    #[test]
    fn the_same_is_no_difference() {
        let one = || compiled(true, &[1], vec![revision("shop/a", "one")]);
        assert_eq!(difference(&one(), &one()), Difference::default());
    }

    #[test]
    fn in_chain_mode_a_new_plugin_changes_a_chain_and_drains_nothing() {
        let found = difference(&compiled(true, &[1], vec![]), &compiled(true, &[1], vec![revision("shop/a", "one")]));
        assert_eq!(told(&found), ["Changed ExtensionConfig wasmplane/in-1/PreAuthN-BeforeRouter"]);
        assert_eq!(found.listeners, BTreeSet::from(["in-1".to_owned()]));
        assert_eq!(found.drains, BTreeSet::new());
    }

    #[test]
    fn in_filter_mode_a_new_plugin_drains_and_an_edit_does_not() {
        let (none, one) = (compiled(false, &[1], vec![]), compiled(false, &[1], vec![revision("shop/a", "one")]));
        let two = compiled(false, &[1], vec![revision("shop/a", "two")]);
        let found = difference(&none, &one);
        assert_eq!(
            told(&found),
            ["Added ExtensionConfig extensions.istio.io/wasmplugin/shop.a", "Changed Listener in-1"]
        );
        assert_eq!(found.drains, BTreeSet::from(["in-1".to_owned()]));
        let found = difference(&one, &two);
        assert_eq!((found.listeners.len(), found.drains.len()), (1, 0));
    }

    #[test]
    fn a_listener_that_goes_drains_and_one_that_comes_does_not() {
        let found = difference(&compiled(true, &[1], vec![]), &compiled(true, &[2], vec![]));
        assert_eq!(found.drains, BTreeSet::from(["in-1".to_owned()]));
        assert_eq!(found.listeners, BTreeSet::from(["in-1".to_owned(), "in-2".to_owned()]));
    }

    #[test]
    fn a_listener_is_touched_by_its_cluster() {
        let mut template = ProxyTemplate {
            listeners: vec![listener("in", 1, ListenerProtocol::Http), listener("other", 2, ListenerProtocol::Http)],
            ..template("shop/web")
        };
        let before = compile(&kind(vec![template.clone()], vec![]));
        template.listeners[0].forward_to.as_mut().unwrap().port = 7;
        let found = difference(&before, &compile(&kind(vec![template], vec![])));
        assert_eq!(told(&found), ["Changed Cluster wasmplane/in"]);
        assert_eq!(found.listeners, BTreeSet::from(["in".to_owned()]));
        assert_eq!(found.drains, BTreeSet::new());
    }
}
