//! Which proxies a resource asks for: `selector`, `targetRef`, `targetRefs` (Istio: R1.2, R1.6, R1.10).

use super::fields::{Field, Object};
use super::names::{is_dns_subdomain, is_label_key, is_label_value};
use super::report::Report;
use crate::model::{Selector, TargetReference, WorkloadTarget};

/// The allowed pairs of group and kind.
const TARGETS: [(&str, &str); 5] = [
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// The kinds that stand behind a waypoint, of which there are none here (R2.6 to R2.8).
const BEHIND_WAYPOINTS: [&str; 3] = ["Service", "ServiceEntry", "GatewayClass"];

/// The ways to say it that a kind has, of which one may be used.
pub(super) fn target(spec: &Object<'_>, ways: &[&str], report: &mut Report<'_>) -> Option<WorkloadTarget> {
    let present = spec.present(ways);
    if let [_, second, ..] = present[..] {
        // Presence counts: `selector: {}` and `targetRefs: []` are set (R1.6).
        report.fault(
            &format!("{}.{second}", spec.path),
            format!("only one of selector, targetRef, targetRefs may be set, here are {}", present.join(" and ")),
        );
    }
    let selector = spec.get("selector").map(|field| selector(&field, report));
    let one = spec.get("targetRef").filter(|_| ways.contains(&"targetRef"));
    let one = one.map(|field| reference(&field, report).map(|reference| vec![reference]));
    let many = spec.get("targetRefs").map(|field| references(&field, report));
    match (selector, one.or(many)) {
        (Some(selector), _) => selector.map(WorkloadTarget::Labels),
        (None, Some(references)) => references
            // An empty list asks for nothing in particular (R2.4).
            .map(|list| if list.is_empty() { WorkloadTarget::Everything } else { WorkloadTarget::References(list) }),
        (None, None) => Some(WorkloadTarget::Everything),
    }
}

/// `{matchLabels: {…}}`.
pub(super) fn selector(field: &Field<'_>, report: &mut Report<'_>) -> Option<Selector> {
    let object = field.object(&["matchLabels"], report)?;
    let Some(match_labels) = object.get("matchLabels") else {
        report.warn(&field.path, "selector without labels selects the whole namespace");
        return Some(Selector::default());
    };
    let labels = match_labels.text_map(report)?;
    if labels.is_empty() {
        report.warn(&field.path, "selector without labels selects the whole namespace");
    }
    if labels.len() > 4096 {
        report.fault(&match_labels.path, format!("has {} labels, at most 4096 are allowed", labels.len()));
    }
    for (key, value) in &labels {
        label(&format!("{}.{key}", match_labels.path), key, value, report);
    }
    Some(Selector(labels))
}

fn label(path: &str, key: &str, value: &str, report: &mut Report<'_>) {
    if key.is_empty() {
        report.fault(path, "the key of a label must not be empty");
    } else if key.contains('*') || value.contains('*') {
        report.fault(path, "a selector knows no wildcards: \"*\" is not allowed in keys and values");
    } else if value.chars().count() > 63 {
        report.fault(path, format!("selector value longer than 63 characters: it has {}", value.chars().count()));
    } else if !is_label_key(key) || !is_label_value(value) {
        report.warn(path, format!("no Kubernetes label can be \"{key}={value}\""));
    }
}

fn references(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<TargetReference>> {
    let items = field.list(16, report)?;
    // Every item is read before the first bad one ends it, so that all faults are told.
    let references: Vec<_> = items.iter().map(|item| reference(item, report)).collect();
    references.into_iter().collect()
}

fn reference(field: &Field<'_>, report: &mut Report<'_>) -> Option<TargetReference> {
    let object = field.object(&["group", "kind", "name", "namespace"], report)?;
    let group = match object.get("group") {
        Some(group) => group.text_of(0..=253, report),
        None => Some(""),
    };
    let kind = object.required("kind", report).and_then(|kind| kind.text_of(1..=63, report));
    let name = object.required("name", report).and_then(|name| name.characters(1..=253, report));
    if let Some(namespace) = object.get("namespace")
        && namespace.text(report).is_some_and(|text| !text.is_empty())
    {
        report.fault(&namespace.path, "targetRef namespace must be empty: a reference stays in its own namespace");
    }
    let (group, kind, name) = (group?, kind?, name?);
    if !group.is_empty() && !is_dns_subdomain(group) {
        report.fault(&format!("{}.group", field.path), format!("\"{group}\" is no API group"));
        return None;
    }
    if !TARGETS.contains(&(group, kind)) {
        report.fault(&format!("{}.kind", field.path), not_allowed(group, kind));
        return None;
    }
    if BEHIND_WAYPOINTS.contains(&kind) {
        report.warn(
            &format!("{}.kind", field.path),
            format!("has no target here: a {kind} is reached through a waypoint, which is part of a mesh"),
        );
    }
    Some(TargetReference { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned() })
}

fn not_allowed(group: &str, kind: &str) -> String {
    let spelled = |(group, kind): &(&str, &str)| {
        if group.is_empty() { (*kind).to_owned() } else { format!("{group}/{kind}") }
    };
    let allowed: Vec<_> = TARGETS.iter().map(spelled).collect();
    format!("targetRef kind is not allowed: \"{}\", allowed are {}", spelled(&(group, kind)), allowed.join(", "))
}
