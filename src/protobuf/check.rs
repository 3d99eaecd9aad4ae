//! Everything that is wrong with a message in JSON, each with its path.
//!
//! The parser of `prost-reflect` is the only judge; it stops at the first fault and, within an `Any`, does not say
//! where. So its message is taken apart here along the descriptors and each part is shown to it alone.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::Violation;
use super::suggestion::did_you_mean;

type Object = Map<String, Value>;

pub(super) const ANY: &str = "google.protobuf.Any";

/// Everything that is wrong with `json` as a message of this type, in the order of the fields' names.
pub(super) fn violations(descriptor: &MessageDescriptor, json: &Value) -> Vec<Violation> {
    let mut found = Found::default();
    found.message(descriptor, json, "");
    found.violations
}

#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
}

impl Found {
    fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.violations.push(Violation { path: path.into(), reason: reason.into() });
    }

    fn message(&mut self, descriptor: &MessageDescriptor, json: &Value, path: &str) {
        match json {
            Value::Object(object) if descriptor.full_name() == ANY => self.any(descriptor, object, path),
            Value::Object(object) if !is_well_known(descriptor) => self.fields(descriptor, object, path),
            _ => self.judge(descriptor, json.clone(), path),
        }
    }

    fn any(&mut self, descriptor: &MessageDescriptor, object: &Object, path: &str) {
        let type_path = join(path, "@type");
        let Some(type_url) = object.get("@type").and_then(Value::as_str) else {
            return self.add(type_path, "is required, such as type.googleapis.com/envoy.config.listener.v3.Listener");
        };
        let pool = descriptor.parent_pool();
        let name = type_url.rsplit('/').next().unwrap_or(type_url);
        let Some(inner) = pool.get_message_by_name(name).filter(|_| type_url.contains('/')) else {
            let known = pool.all_messages().map(|message| format!("type.googleapis.com/{}", message.full_name()));
            return self.add(type_path, format!("no message \"{type_url}\" is known{}", did_you_mean(type_url, known)));
        };
        let mut content = object.clone();
        content.remove("@type");
        if !is_well_known(&inner) {
            return self.fields(&inner, &content, path);
        }
        match content.remove("value") {
            Some(value) => self.message(&inner, &value, &join(path, "value")),
            None => self.add(join(path, "value"), format!("is required: the content of a {name}")),
        }
        for key in content.keys() {
            self.add(join(path, key), "unknown field; beside @type only value is allowed here");
        }
    }

    fn fields(&mut self, descriptor: &MessageDescriptor, object: &Object, path: &str) {
        let before = self.violations.len();
        for (key, value) in object {
            let path = join(path, key);
            match descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key)) {
                Some(field) => self.field(&field, key, value, &path),
                None => self.add(path, unknown_field(descriptor, key)),
            }
        }
        // What no field shows alone, such as two of a oneof.
        if self.violations.len() == before {
            self.judge(descriptor, Value::Object(object.clone()), path);
        }
    }

    fn field(&mut self, field: &FieldDescriptor, key: &str, value: &Value, path: &str) {
        match value {
            // Absent, in protobuf's JSON.
            Value::Null => {}
            Value::Array(items) if field.is_list() => {
                for (index, item) in items.iter().enumerate() {
                    self.single(&field.kind(), field, item, &format!("{path}[{index}]"), || json!({key: [item]}));
                }
            }
            Value::Object(entries) if field.is_map() => {
                let Kind::Message(entry) = field.kind() else { return };
                let kind = entry.map_entry_value_field().kind();
                for (name, item) in entries {
                    self.single(&kind, field, item, &join(path, name), || json!({key: {name: item}}));
                }
            }
            _ if field.is_list() => self.add(path, format!("must be a list, not {}", shown(value))),
            _ if field.is_map() => self.add(path, format!("must be an object, not {}", shown(value))),
            _ => self.single(&field.kind(), field, value, path, || json!({key: value})),
        }
    }

    /// One value of `kind`; `alone` is the message around `field` with nothing else in it.
    fn single(
        &mut self,
        kind: &Kind,
        field: &FieldDescriptor,
        value: &Value,
        path: &str,
        alone: impl FnOnce() -> Value,
    ) {
        match (kind, value) {
            (Kind::Message(message), _) => self.message(message, value, path),
            (Kind::Enum(kind), Value::String(text)) if kind.get_value_by_name(text).is_none() => {
                let names: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
                let suggestion = did_you_mean(text, &names);
                let allowed = names.join(", ");
                self.add(path, format!("\"{text}\" is not a known value, allowed are {allowed}{suggestion}"));
            }
            _ => self.judge(field.parent_message(), alone(), path),
        }
    }

    fn judge(&mut self, descriptor: &MessageDescriptor, json: Value, path: &str) {
        if let Err(error) =
            DynamicMessage::deserialize_with_options(descriptor.clone(), json, &DeserializeOptions::new())
        {
            self.add(path, error.to_string());
        }
    }
}

fn unknown_field(descriptor: &MessageDescriptor, key: &str) -> String {
    let known: Vec<_> = descriptor.fields().map(|field| field.name().to_owned()).collect();
    format!("{} has no field \"{key}\"{}", descriptor.full_name(), did_you_mean(key, &known))
}

/// Types whose JSON is not simply an object of their fields.
pub(super) fn is_well_known(descriptor: &MessageDescriptor) -> bool {
    let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") else { return false };
    matches!(name, "Any" | "Timestamp" | "Duration" | "Struct" | "Value" | "ListValue" | "FieldMask" | "Empty")
        || name.ends_with("Value")
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}
