//! A difference for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::text::change_word;
use crate::commands::mode_name;
use crate::protobuf::admin::{DiffManifestsResponse, FieldDiff, ManifestDiff, ProxyDiff, ResourceDiff};

pub fn of(diff: &DiffManifestsResponse) -> Value {
    let rejected = diff.rejected.iter().map(|it| json!({"resource": it.resource, "reason": it.reason}));
    json!({
        "compared": diff.compared,
        "proxies": diff.proxies.iter().map(proxy).collect::<Vec<_>>(),
        "manifests": diff.manifests.iter().map(manifest).collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
        "warnings": diff.warnings,
    })
}

fn proxy(proxy: &ProxyDiff) -> Value {
    json!({
        "ids": proxy.ids,
        "namespace": proxy.namespace,
        "labels": proxy.labels.iter().collect::<BTreeMap<_, _>>(),
        "envoyVersion": proxy.envoy_version,
        "mode": mode_name(proxy.mode()),
        "listeners": proxy.listeners,
        "drains": proxy.drains,
        "resources": proxy.resources.iter().map(resource).collect::<Vec<_>>(),
    })
}

fn resource(resource: &ResourceDiff) -> Value {
    json!({"type": resource.r#type, "name": resource.name, "change": change_word(resource.change())})
}

fn manifest(manifest: &ManifestDiff) -> Value {
    json!({
        "resource": manifest.resource,
        "change": change_word(manifest.change()),
        "fields": manifest.fields.iter().map(field).collect::<Vec<_>>(),
    })
}

fn field(field: &FieldDiff) -> Value {
    json!({"field": field.field, "old": field.old, "new": field.new})
}
