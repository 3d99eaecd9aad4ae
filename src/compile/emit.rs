//! Finished resources: bytes, a version from their canonical source, and the names they refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::merge::Merged;
use crate::model::Digest;
use crate::protobuf;
use crate::snapshot::{Resource, ResourceType, Rope, Version};

/// The resource of an encoded message. `merged` says which names exist.
pub fn resource(resource_type: ResourceType, name: &str, message: Bytes, merged: &Merged) -> Resource {
    let full_name = resource_type.type_url().trim_start_matches("type.googleapis.com/");
    let json = protobuf::to_json(full_name, &message);
    let version = match &json {
        // Not to be shown as JSON: its bytes are all there is to go by.
        Value::Null => Version::of_text(&Digest::of(&message).to_string()),
        json => Version::of(json),
    };
    let mut body = Rope::new();
    body.push(message);
    let mut resource = Resource::new(resource_type, name, version, body);
    resource.references = references(resource_type, name, &json, merged);
    resource
}

/// The resources of one type.
pub fn resources(
    resource_type: ResourceType,
    messages: &BTreeMap<String, Bytes>,
    merged: &Merged,
) -> BTreeMap<String, Arc<Resource>> {
    messages
        .iter()
        .map(|(name, message)| (name.clone(), Arc::new(resource(resource_type, name, message.clone(), merged))))
        .collect()
}

fn references(resource_type: ResourceType, name: &str, json: &Value, merged: &Merged) -> Vec<(ResourceType, Arc<str>)> {
    let mut found = BTreeSet::new();
    match resource_type {
        // Envoy names clusters in dozens of places: any text that is the name of one counts.
        ResourceType::Listener => each_text(json, &mut |text| {
            if merged.clusters.contains_key(text) {
                found.insert((ResourceType::Cluster, text.into()));
            }
            if merged.routes.contains_key(text) {
                found.insert((ResourceType::Route, text.into()));
            }
        }),
        ResourceType::Route => each_text(json, &mut |text| {
            if merged.clusters.contains_key(text) {
                found.insert((ResourceType::Cluster, text.into()));
            }
        }),
        ResourceType::Cluster => {
            if json["type"] == "EDS" {
                let service = json["eds_cluster_config"]["service_name"].as_str().unwrap_or(name);
                found.insert((ResourceType::Endpoint, service.into()));
            }
            // The members of an aggregate cluster; nothing refers to them but it.
            each_text(json, &mut |text| {
                if text != name && merged.clusters.contains_key(text) {
                    found.insert((ResourceType::Cluster, text.into()));
                }
            });
        }
        ResourceType::Endpoint | ResourceType::ExtensionConfig => {}
    }
    found.into_iter().collect()
}

fn each_text(json: &Value, visit: &mut impl FnMut(&str)) {
    match json {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => fields.values().for_each(|field| each_text(field, visit)),
        _ => {}
    }
}
