//! All templates of a proxy as one set of resources, without plugins.
//!
//! Comes in: templates in the order in which they win. Goes out: [`Merged`], and a problem for each clash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use prost::Message as _;

use super::shape::{self, Shape};
use super::{Problem, short_form};
use crate::model::{NativeKind, ProxyTemplate, TemplateId, WithoutConfig};

/// What the proxies of a kind listen on, before plugins.
#[derive(Debug, Default)]
pub struct Merged {
    /// In the order in which they were written.
    pub listeners: Vec<MergedListener>,
    /// Encoded, by name.
    pub clusters: BTreeMap<String, Bytes>,
    pub routes: BTreeMap<String, Bytes>,
    pub endpoints: BTreeMap<String, Bytes>,
    pub problems: Vec<Problem>,
}

/// A listener and where it comes from.
#[derive(Debug)]
pub struct MergedListener {
    pub template: TemplateId,
    pub without_config: WithoutConfig,
    pub shape: Shape,
    pub message: Listener,
    /// Another listener has its address: Envoy would refuse this one.
    pub is_shadowed: bool,
}

/// Merges `templates`: of two resources of one type and name the first wins.
pub fn merge(templates: &[Arc<ProxyTemplate>]) -> Merged {
    let mut merge = Merge::default();
    for template in templates {
        for spec in &template.listeners {
            if !merge.listener(template, short_form::listener(spec)) {
                continue;
            }
            if let Some(cluster) = short_form::cluster(spec) {
                merge.resource(template, NativeKind::Cluster, &cluster.name, cluster.encode_to_vec().into());
            }
        }
        for native in &template.native {
            match native.kind {
                NativeKind::Listener => match Listener::decode(native.message.clone()) {
                    Ok(listener) => _ = merge.listener(template, listener),
                    Err(error) => merge.report(template, format!("listener {}: {error}", native.name)),
                },
                kind => merge.resource(template, kind, &native.name, native.message.clone()),
            }
        }
    }
    merge.merged
}

#[derive(Default)]
struct Merge {
    merged: Merged,
    /// Who has each name.
    owners: HashMap<(NativeKind, String), TemplateId>,
    /// Which listener has each address.
    sockets: HashMap<(i32, String, u16), String>,
}

impl Merge {
    /// Whether the listener has its name.
    fn listener(&mut self, template: &ProxyTemplate, message: Listener) -> bool {
        if !self.claim(template, NativeKind::Listener, &message.name) {
            return false;
        }
        let is_shadowed = self.is_shadowed(template, &message);
        let shape = Shape::of(&message);
        let (template, without_config) = (template.id.clone(), template.without_config);
        self.merged.listeners.push(MergedListener { template, without_config, shape, message, is_shadowed });
        true
    }

    fn resource(&mut self, template: &ProxyTemplate, kind: NativeKind, name: &str, message: Bytes) {
        if !self.claim(template, kind, name) {
            return;
        }
        let resources = match kind {
            NativeKind::Cluster => &mut self.merged.clusters,
            NativeKind::Route => &mut self.merged.routes,
            NativeKind::Endpoint => &mut self.merged.endpoints,
            NativeKind::Listener => return,
        };
        resources.insert(name.to_owned(), message);
    }

    fn claim(&mut self, template: &ProxyTemplate, kind: NativeKind, name: &str) -> bool {
        let key = (kind, name.to_owned());
        let Some(owner) = self.owners.get(&key) else {
            self.owners.insert(key, template.id.clone());
            return true;
        };
        let kind = kind.word();
        let reason = match *owner == template.id {
            true => format!("{kind} {name} is defined twice: the first one wins"),
            false => format!("{kind} {name} is defined by ProxyTemplate {owner} too, which wins"),
        };
        self.report(template, reason);
        false
    }

    fn is_shadowed(&mut self, template: &ProxyTemplate, listener: &Listener) -> bool {
        // Port 0 is a free one each time, or no port at all.
        let Some((protocol, address, port)) = shape::socket(listener).filter(|(_, _, port)| *port != 0) else {
            return false;
        };
        let key = (protocol, address.to_owned(), port);
        let Some(other) = self.sockets.get(&key) else {
            self.sockets.insert(key, listener.name.clone());
            return false;
        };
        let reason =
            format!("listener {} is not served: listener {other} has its address {address}:{port}", listener.name);
        self.report(template, reason);
        true
    }

    fn report(&mut self, template: &ProxyTemplate, reason: String) {
        self.merged.problems.push(Problem::of_template(&template.id, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::{listener, template};
    use crate::model::{ListenerProtocol, ListenerSpec, NativeResource};

    fn of(id: &str, listeners: Vec<ListenerSpec>) -> Arc<ProxyTemplate> {
        Arc::new(ProxyTemplate { listeners, ..template(id) })
    }

    fn http(name: &str, port: u16) -> ListenerSpec {
        listener(name, port, ListenerProtocol::Http)
    }

    #[test]
    fn of_two_listeners_of_one_name_the_first_wins_with_its_cluster() {
        let mut other = http("l", 2);
        other.forward_to = None;
        let merged = merge(&[of("shop/a", vec![http("l", 1)]), of("root/b", vec![other, http("m", 3)])]);
        let listeners: Vec<_> = merged.listeners.iter().map(|it| (it.shape.name.as_str(), it.shape.port)).collect();
        assert_eq!(listeners, [("l", 1), ("m", 3)]);
        assert_eq!(merged.clusters.keys().collect::<Vec<_>>(), ["wasmplane/l", "wasmplane/m"]);
        let expected = Problem {
            resource: "ProxyTemplate root/b".into(),
            reason: "listener l is defined by ProxyTemplate shop/a too, which wins".into(),
        };
        assert_eq!(merged.problems, [expected]);
    }

    #[test]
    fn two_listeners_on_one_address_are_reported_and_the_first_is_served() {
        let merged = merge(&[of("shop/a", vec![http("l", 1), http("m", 1), http("n", 0), http("o", 0)])]);
        let shadowed: Vec<_> = merged.listeners.iter().map(|it| it.is_shadowed).collect();
        assert_eq!(shadowed, [false, true, false, false]);
        assert_eq!(merged.problems[0].reason, "listener m is not served: listener l has its address 0.0.0.0:1");
    }

    #[test]
    fn bytes_that_are_no_listener_are_a_problem_and_not_the_end() {
        let broken =
            NativeResource { kind: NativeKind::Listener, name: "x".into(), message: Bytes::from_static(b"\xff") };
        let mut template = template("shop/a");
        template.native.push(broken);
        template.listeners.push(http("l", 1));
        let merged = merge(&[Arc::new(template)]);
        assert_eq!((merged.listeners.len(), merged.problems.len()), (1, 1));
    }
}
