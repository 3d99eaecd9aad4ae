//! The `spec` of a ProxyTemplate, turned into a [`ProxyTemplate`]: the short form; `native` has the other one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::cross::{self, Socket};
use super::fields::{Field, shown_text};
use super::names::is_host_name;
use super::native;
use super::report::Report;
use super::workload::selector;
use crate::model::{
    Direction, ForwardTo, Host, ListenerProtocol, ListenerSpec, NativeKind, ProxyTemplate, TemplateId, WithoutConfig,
};

const DIRECTIONS: [(&str, Direction); 3] =
    [("INBOUND", Direction::Inbound), ("OUTBOUND", Direction::Outbound), ("GATEWAY", Direction::Gateway)];

const PROTOCOLS: [(&str, ListenerProtocol); 2] = [("HTTP", ListenerProtocol::Http), ("TCP", ListenerProtocol::Tcp)];

const WITHOUT_CONFIG: [(&str, WithoutConfig); 2] = [("Deny", WithoutConfig::Deny), ("Allow", WithoutConfig::Allow)];

/// Names of resources that one template uses already.
#[derive(Default)]
pub(super) struct Names(BTreeSet<(NativeKind, String)>);

impl Names {
    /// Checks a resource's name and takes it.
    pub(super) fn take(&mut self, kind: NativeKind, field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
        let name = field.text(report)?;
        if name.is_empty() {
            report.fault(&field.path, "must not be empty");
        } else if name.starts_with("wasmplane/") {
            report.fault(&field.path, format!("{} begins with wasmplane/, which is reserved", shown_text(name)));
        } else if !self.0.insert((kind, name.to_owned())) {
            report.fault(&field.path, format!("another {} of this template has the name {name:?}", kind.word()));
        }
        Some(name.to_owned())
    }
}

/// Reads `spec`, as `wasm_plugin::read` does.
pub(super) fn read(
    id: &TemplateId,
    created: Option<Timestamp>,
    spec: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<ProxyTemplate> {
    let spec = spec.object(&["selector", "withoutConfig", "listeners", "envoy"], report)?;
    let selector = spec.get("selector").and_then(|field| selector(&field, report));
    let without_config = spec.get("withoutConfig").and_then(|field| field.choice(&WITHOUT_CONFIG, report));
    let mut names = Names::default();
    let listeners = spec.get("listeners").map(|field| listeners(&field, &mut names, report)).unwrap_or_default();
    let native = spec.get("envoy").map(|field| native::read(&field, &mut names, report)).unwrap_or_default();
    let template = ProxyTemplate {
        id: id.clone(),
        created,
        selector,
        without_config: without_config.unwrap_or_default(),
        listeners,
        native,
    };
    addresses(&template, report);
    Some(template)
}

/// Envoy refuses the second listener on an address; it is not served, and the others are, so it is no fault.
fn addresses(template: &ProxyTemplate, report: &mut Report<'_>) {
    let mut taken: BTreeMap<Socket, String> = BTreeMap::new();
    for shape in cross::listeners(template) {
        let Some(socket) = shape.socket else { continue };
        match taken.get(&socket) {
            Some(other) => {
                let name = &shape.name;
                let reason = format!("listener {name} is not served: listener {other} has its address {socket}");
                report.warn(&shape.path, reason);
            }
            None => _ = taken.insert(socket, shape.name),
        }
    }
}

fn listeners(field: &Field<'_>, names: &mut Names, report: &mut Report<'_>) -> Vec<ListenerSpec> {
    let items = field.list(usize::MAX, report).unwrap_or_default();
    items.iter().filter_map(|item| listener(item, names, report)).collect()
}

fn listener(field: &Field<'_>, names: &mut Names, report: &mut Report<'_>) -> Option<ListenerSpec> {
    let object = field.object(&["name", "direction", "port", "bind", "protocol", "forwardTo"], report)?;
    let name = object.required("name", report).and_then(|field| names.take(NativeKind::Listener, &field, report));
    let direction = object.required("direction", report).and_then(|field| field.choice(&DIRECTIONS, report));
    let port = object.required("port", report).and_then(|field| field.port(report));
    let bind = match object.get("bind") {
        Some(field) => bind(&field, report),
        None => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    let protocol = object.required("protocol", report).and_then(|field| field.choice(&PROTOCOLS, report));
    let forward_to = object.get("forwardTo").and_then(|field| forward_to(&field, report));
    Some(ListenerSpec { name: name?, direction: direction?, port: port?, bind: bind?, protocol: protocol?, forward_to })
}

fn bind(field: &Field<'_>, report: &mut Report<'_>) -> Option<IpAddr> {
    let text = field.text(report)?;
    let wrong = |_| report.fault(&field.path, format!("must be an IP address, not {}", shown_text(text)));
    text.parse().map_err(wrong).ok()
}

fn forward_to(field: &Field<'_>, report: &mut Report<'_>) -> Option<ForwardTo> {
    let object = field.object(&["host", "port"], report)?;
    let host = object.required("host", report).and_then(|field| host(&field, report));
    let port = object.required("port", report).and_then(|field| field.port(report));
    Some(ForwardTo { host: host?, port: port? })
}

fn host(field: &Field<'_>, report: &mut Report<'_>) -> Option<Host> {
    let text = field.text(report)?;
    if let Ok(address) = text.parse() {
        return Some(Host::Address(address));
    }
    if is_host_name(text) {
        return Some(Host::Name(text.to_owned()));
    }
    report.fault(&field.path, format!("must be an IP address or a DNS name, not {}", shown_text(text)));
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::model::{NativeResource, Selector};
    use crate::protobuf::to_json;
    use crate::sources::document::{Content, Declaration};
    use crate::sources::manifest;

    fn declaration(spec: &str) -> Declaration {
        let head = "apiVersion: wasmplane.io/v1alpha1\nkind: ProxyTemplate\nmetadata: {name: web, namespace: shop}\n";
        let text = format!("{head}spec:\n{spec}");
        manifest::parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations.remove(0)
    }

    fn template(spec: &str) -> ProxyTemplate {
        let declaration = declaration(spec);
        let Some(Content::Template(template)) = declaration.content else { panic!("{:#?}", declaration.faults) };
        template.as_ref().clone()
    }

    fn told(spec: &str) -> Vec<String> {
        let declaration = declaration(spec);
        assert!(declaration.content.is_none());
        let shown = |found: crate::sources::Finding| {
            assert_eq!(found.resource, "ProxyTemplate shop/web");
            format!("{} {}: {}", found.line, found.field, found.reason)
        };
        declaration.faults.into_iter().map(shown).collect()
    }

    #[test]
    fn the_short_form_is_read_with_its_defaults() {
        let spec = "  selector: {matchLabels: {app: web}}\n  withoutConfig: Allow\n  listeners:\n  \
                    - {name: in, direction: INBOUND, port: 8080, protocol: HTTP}\n  \
                    - {name: out, direction: OUTBOUND, port: 9090, bind: '::1', protocol: TCP, \
                       forwardTo: {host: db.local, port: 5432}}\n  \
                    - {name: gw, direction: GATEWAY, port: 80, protocol: HTTP, forwardTo: {host: 10.0.0.1, port: 1}}\n";
        let listener = |name: &str, direction, port, bind: &str, protocol, forward_to| ListenerSpec {
            name: name.into(),
            direction,
            port,
            bind: bind.parse().unwrap(),
            protocol,
            forward_to,
        };
        let database = ForwardTo { host: Host::Name("db.local".into()), port: 5432 };
        let upstream = ForwardTo { host: Host::Address("10.0.0.1".parse().unwrap()), port: 1 };
        let wanted = ProxyTemplate {
            id: TemplateId { namespace: "shop".into(), name: "web".into() },
            created: None,
            selector: Some(Selector([("app".to_owned(), "web".to_owned())].into())),
            without_config: WithoutConfig::Allow,
            listeners: vec![
                listener("in", Direction::Inbound, 8080, "0.0.0.0", ListenerProtocol::Http, None),
                listener("out", Direction::Outbound, 9090, "::1", ListenerProtocol::Tcp, Some(database)),
                listener("gw", Direction::Gateway, 80, "0.0.0.0", ListenerProtocol::Http, Some(upstream)),
            ],
            native: Vec::new(),
        };
        assert_eq!(template(spec), wanted);
    }

    #[test]
    fn a_listener_in_the_short_form_is_checked_field_by_field() {
        let spec = "  listeners:\n  - {name: wasmplane/x, direction: IN, port: 0, bind: localhost, protocol: UDP}\n  \
                    - {name: a, direction: INBOUND, port: 1, protocol: HTTP, forwardTo: {host: 'a b', port: 65536}}\n  \
                    - {name: a, direction: INBOUND, port: 2, protocol: HTTP}\n  - {name: '', prot: 1}\n";
        assert_eq!(
            told(spec),
            [
                "6 spec.listeners[0].name: \"wasmplane/x\" begins with wasmplane/, which is reserved",
                "6 spec.listeners[0].direction: \"IN\" is not a known value, allowed are INBOUND, OUTBOUND, GATEWAY, did you mean \"INBOUND\"?",
                "6 spec.listeners[0].port: 0 is out of range, allowed is 1 to 65535",
                "6 spec.listeners[0].bind: must be an IP address, not \"localhost\"",
                "6 spec.listeners[0].protocol: \"UDP\" is not a known value, allowed are HTTP, TCP",
                "7 spec.listeners[1].forwardTo.host: must be an IP address or a DNS name, not \"a b\"",
                "7 spec.listeners[1].forwardTo.port: 65536 is out of range, allowed is 1 to 65535",
                "8 spec.listeners[2].name: another listener of this template has the name \"a\"",
                "9 spec.listeners[3].prot: unknown field, did you mean \"port\"?",
                "9 spec.listeners[3].name: must not be empty",
                "9 spec.listeners[3].direction: is required",
                "9 spec.listeners[3].port: is required",
                "9 spec.listeners[3].protocol: is required",
            ]
        );
    }

    const NATIVE: &str = r#"  envoy:
    listeners:
    - name: l
      address: {socketAddress: {address: 0.0.0.0, port_value: 80}}
      filter_chains:
      - filters:
        - name: tcp
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
            stat_prefix: x
            cluster: c
    clusters:
    - {name: c, connect_timeout: 1s}
    endpoints:
    - {cluster_name: c}
"#;

    #[test]
    fn the_native_form_becomes_messages_that_hold_all_that_was_written() {
        let native = template(NATIVE).native;
        let kinds: Vec<_> = native.iter().map(|resource| (resource.kind, resource.name.as_str())).collect();
        assert_eq!(kinds, [(NativeKind::Listener, "l"), (NativeKind::Cluster, "c"), (NativeKind::Endpoint, "c")]);
        let NativeResource { message, .. } = &native[0];
        assert_eq!(
            to_json("envoy.config.listener.v3.Listener", message),
            json!({
                "name": "l",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
                "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "x", "cluster": "c"}}]}]
            })
        );
    }

    #[test]
    fn what_is_wrong_in_the_native_form_is_told_with_the_whole_path_and_the_nearest_line() {
        let spec = NATIVE
            .replace("stat_prefix", "stat_prefx")
            .replace("connect_timeout: 1s", "connect_timeout: soon, lb_policy: ROUND_ROBBIN")
            .replace("- {cluster_name: c}", "- {endpoints: []}")
            .replace("port_value: 80", "port_value: high");
        let told = told(&spec);
        let has = |start: &str, end: &str| told.iter().any(|told| told.starts_with(start) && told.ends_with(end));
        let stat_prefix = "14 spec.envoy.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefx: ";
        assert!(has(stat_prefix, "did you mean \"stat_prefix\"?"), "{told:#?}");
        let port = "8 spec.envoy.listeners[0].address.socketAddress.port_value: must be a whole number";
        assert!(has(port, "not \"high\""), "{told:#?}");
        let timeout = "17 spec.envoy.clusters[0].connect_timeout: must be a length of time in seconds";
        assert!(has(timeout, "such as 1.5s, not \"soon\""), "{told:#?}");
        assert!(has("17 spec.envoy.clusters[0].lb_policy: ", "did you mean \"ROUND_ROBIN\"?"), "{told:#?}");
        assert!(has("19 spec.envoy.endpoints[0].cluster_name: ", "is required"), "{told:#?}");
        let missing = "12 spec.envoy.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefix: ";
        assert!(has(missing, "must not be empty"), "{told:#?}");
        assert_eq!(told.len(), 6, "{told:#?}");
    }

    #[test]
    fn of_two_listeners_on_one_address_the_second_is_warned_of() {
        let spec = "  listeners:\n  - {name: a, direction: INBOUND, port: 80, bind: '::1', protocol: TCP}\n  envoy:\n    listeners:\n    \
                    - {name: b, address: {socketAddress: {address: '0:0::1', portValue: 80}}}\n    \
                    - {name: c, address: {socketAddress: {address: '::1', portValue: 80, protocol: UDP}}}\n    \
                    - {name: d, address: {socketAddress: {address: '::1', portValue: 0}}}\n    \
                    - {name: e, address: {socketAddress: {address: '::1', portValue: 0}}}\n";
        let warnings: Vec<_> =
            declaration(spec).warnings.into_iter().map(|it| (it.line, it.field, it.reason)).collect();
        let reason = "listener b is not served: listener a has its address [::1]:80";
        assert_eq!(warnings, [(9, "spec.envoy.listeners[0]".to_owned(), reason.to_owned())]);
    }

    #[test]
    fn a_large_realistic_configuration_breaks_no_rule() {
        let spec = include_str!("native_tests.yaml");
        let kinds: Vec<_> = template(spec).native.iter().map(|resource| resource.kind).collect();
        assert_eq!(kinds.len(), 12);
    }

    #[test]
    fn native_names_are_required_unique_and_not_ours_and_a_listener_needs_an_address() {
        let spec = "  listeners: [{name: l, direction: INBOUND, port: 1, protocol: TCP}]\n  envoy:\n    \
                    listeners: [{name: l, address: {}}, {name: m}, {address: {}}, {name: o, internal_listener: {}}]\n    \
                    clusters: [{name: wasmplane/l}, {name: l}]\n    routers: []\n";
        assert_eq!(
            told(spec),
            [
                "9 spec.envoy.routers: unknown field, did you mean \"routes\"?",
                "7 spec.envoy.listeners[0].name: another listener of this template has the name \"l\"",
                "7 spec.envoy.listeners[0].address: address is required: one of socket_address, pipe, envoy_internal_address",
                "7 spec.envoy.listeners[1].address: is required",
                "7 spec.envoy.listeners[2].name: is required",
                "7 spec.envoy.listeners[2].address: address is required: one of socket_address, pipe, envoy_internal_address",
                "8 spec.envoy.clusters[0].name: \"wasmplane/l\" begins with wasmplane/, which is reserved",
            ]
        );
    }
}
