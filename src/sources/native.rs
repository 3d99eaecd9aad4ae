//! The native form of a ProxyTemplate: Envoy's own resources in Envoy's own JSON or YAML, turned into messages.
//!
//! An unknown field is refused by its path, at any depth, and so is what breaks Envoy's own field rules.

use super::fields::{Field, Object};
use super::native_sense;
use super::proxy_template::Names;
use super::report::Report;
use crate::model::{NativeKind, NativeResource};
use crate::protobuf::{Violation, faults, from_json};

/// The four lists: the kind, its field, its message, and the fields that may hold its name.
static LISTS: [(NativeKind, &str, &str, [&str; 2]); 4] = [
    (NativeKind::Listener, "listeners", "envoy.config.listener.v3.Listener", ["name", "name"]),
    (NativeKind::Cluster, "clusters", "envoy.config.cluster.v3.Cluster", ["name", "name"]),
    (NativeKind::Route, "routes", "envoy.config.route.v3.RouteConfiguration", ["name", "name"]),
    (
        NativeKind::Endpoint,
        "endpoints",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        ["cluster_name", "clusterName"],
    ),
];

/// The field of `spec.envoy` that holds the resources of a kind.
pub(super) fn list_of(kind: NativeKind) -> &'static str {
    row(kind).1
}

/// The message that a resource of a kind is.
pub(super) fn message_of(kind: NativeKind) -> &'static str {
    row(kind).2
}

fn row(kind: NativeKind) -> &'static (NativeKind, &'static str, &'static str, [&'static str; 2]) {
    LISTS.iter().find(|(known, ..)| *known == kind).expect("every kind is in the table")
}

/// What a listener may have in the place of an address.
const ADDRESSES: [&str; 5] = ["address", "internal_listener", "internalListener", "api_listener", "apiListener"];

/// Reads `spec.envoy`.
pub(super) fn read(field: &Field<'_>, names: &mut Names, report: &mut Report<'_>) -> Vec<NativeResource> {
    let known = LISTS.each_ref().map(|(_, key, ..)| *key);
    let Some(object) = field.object(&known, report) else { return Vec::new() };
    let mut resources = Vec::new();
    for &(kind, key, message, name_keys) in &LISTS {
        let items = object.get(key).and_then(|list| list.list(usize::MAX, report)).unwrap_or_default();
        for item in items {
            resources.extend(resource(kind, message, name_keys, &item, names, report));
        }
    }
    resources
}

fn resource(
    kind: NativeKind,
    message: &str,
    name_keys: [&str; 2],
    field: &Field<'_>,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<NativeResource> {
    let object = field.any_object(report)?;
    let name = match name_keys.iter().find_map(|key| object.get(key)) {
        Some(name) => Some(name),
        None => object.required(name_keys[0], report),
    };
    let name = name.and_then(|name| names.take(kind, &name, report));
    if kind == NativeKind::Listener {
        address(&object, report);
    }
    let json = field.node.to_json();
    let encoded = from_json(message, &json);
    for Violation { path, reason } in faults(message, &json, encoded.as_ref().err()) {
        let separator = if path.is_empty() { "" } else { "." };
        let path = format!("{}{separator}{path}", field.path);
        // What is wrong with a name was told of already.
        if !report.has_fault(&path) {
            report.fault(&path, reason);
        }
    }
    let encoded = encoded.ok()?;
    for (path, reason) in native_sense::faults(message, &encoded) {
        report.fault(&format!("{}.{path}", field.path), reason);
    }
    Some(NativeResource { kind, name: name?, message: encoded })
}

fn address(listener: &Object<'_>, report: &mut Report<'_>) {
    if listener.present(&ADDRESSES).is_empty() {
        report.fault(&format!("{}.address", listener.path), "is required");
    }
}
