//! `metadata`: who a resource is, how old, and what its annotations say.

use jiff::Timestamp;

use super::fields::{Field, Object};
use super::names::{is_dns_label, is_dns_subdomain};
use super::report::Report;

pub(super) struct Metadata<'n> {
    pub namespace: &'n str,
    pub name: &'n str,
    pub created: Option<Timestamp>,
    pub annotations: Option<Object<'n>>,
}

/// What Kubernetes itself puts there.
const METADATA: [&str; 17] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "clusterName",
    "initializers",
];

/// Reads it. `None` where it does not say who the resource is.
pub(super) fn read<'n>(root: &Object<'n>, report: &mut Report<'_>) -> Option<Metadata<'n>> {
    let metadata = root.required("metadata", report)?.object(&METADATA, report)?;
    let name = metadata.required("name", report).and_then(|name| name.text(report).map(|text| (name, text)));
    let namespace = metadata.get("namespace");
    let namespace_text = namespace.as_ref().map_or(Some("default"), |namespace| namespace.text(report));
    for key in ["labels", "annotations"] {
        metadata.get(key).and_then(|field| field.text_map(report));
    }
    let annotations = metadata.get("annotations").and_then(|field| field.as_object());
    let created = metadata.get("creationTimestamp").and_then(|field| timestamp(&field, report));
    let ((name_field, name), namespace_text) = (name?, namespace_text?);
    if !is_dns_subdomain(name) {
        report.fault(&name_field.path, format!("\"{name}\" is no DNS subdomain (a-z, 0-9, \"-\" and \".\")"));
        return None;
    }
    if !is_dns_label(namespace_text) {
        report.fault("metadata.namespace", format!("\"{namespace_text}\" is no DNS label (a-z, 0-9 and \"-\")"));
        return None;
    }
    Some(Metadata { namespace: namespace_text, name, created, annotations })
}

fn timestamp(field: &Field<'_>, report: &mut Report<'_>) -> Option<Timestamp> {
    let text = field.text(report)?;
    let wrong = |_| report.fault(&field.path, format!("\"{text}\" is no time, such as 2026-01-31T12:00:00Z"));
    text.parse().map_err(wrong).ok()
}
