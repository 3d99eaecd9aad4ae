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
            _ => {
                self.judge(descriptor, json.clone(), path, || of_message(descriptor).and_then(|it| mistyped(&it, json)))
            }
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
            self.judge(descriptor, Value::Object(object.clone()), path, || None);
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
            _ => self.judge(field.parent_message(), alone(), path, || mistyped(&of_kind(kind)?, value)),
        }
    }

    /// `words` say it better than the parser, where they can.
    fn judge(
        &mut self,
        descriptor: &MessageDescriptor,
        json: Value,
        path: &str,
        words: impl FnOnce() -> Option<String>,
    ) {
        if let Err(error) =
            DynamicMessage::deserialize_with_options(descriptor.clone(), json, &DeserializeOptions::new())
        {
            self.add(path, words().unwrap_or_else(|| error.to_string()));
        }
    }
}

fn mistyped(wanted: &str, value: &Value) -> Option<String> {
    Some(format!("must be {wanted}, not {}", shown(value)))
}

/// What a scalar of that kind is, in words.
fn of_kind(kind: &Kind) -> Option<String> {
    let words = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        Kind::Uint32 | Kind::Fixed32 => format!("a whole number from 0 to {}", u32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a whole number".to_owned(),
        Kind::Uint64 | Kind::Fixed64 => "a whole number that is not negative".to_owned(),
        Kind::Float | Kind::Double => "a number".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "text".to_owned(),
        Kind::Bytes => "base64 text".to_owned(),
        Kind::Message(_) | Kind::Enum(_) => return None,
    };
    Some(words)
}

/// What stands in the place of such a message, in words.
fn of_message(descriptor: &MessageDescriptor) -> Option<String> {
    if !is_well_known(descriptor) {
        return Some("an object".to_owned());
    }
    match descriptor.name() {
        "Duration" => Some("a length of time in seconds, such as 1.5s".to_owned()),
        "Timestamp" => Some("a time, such as 2026-01-31T12:00:00Z".to_owned()),
        "Any" | "Struct" | "Empty" => Some("an object".to_owned()),
        "ListValue" => Some("a list".to_owned()),
        name if name.len() > "Value".len() => of_kind(&descriptor.get_field_by_name("value")?.kind()),
        _ => None,
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
