//! The `spec` of a ProxyTemplate, turned into a [`ProxyTemplate`]: the short form; `native` has the other one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

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
            report.fault(&field.path, format!("another {} of this template has the name {name:?}", native::noun(kind)));
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
    Some(ProxyTemplate {
        id: id.clone(),
        created,
        selector,
        without_config: without_config.unwrap_or_default(),
        listeners,
        native,
    })
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
