//! What an Envoy would refuse a message for, each with its path: the message walked along its rules.
//!
//! Comes in: a message, and the JSON that it was read from, whose spelling of the fields the paths have. An `Any` of a
//! known type is looked into, as the extension in it would look.

use std::collections::HashSet;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};
use serde_json::Value as Json;

use super::Violation;
use super::check::{ANY, is_well_known, join};
use super::rules::{self, Check, FieldRules, Range, number};

/// Everything in `message` that breaks a rule, in the order of the fields' numbers.
pub(super) fn refusals(message: &DynamicMessage, json: &Json) -> Vec<Violation> {
    let mut found = Found::default();
    found.message(message, json, "");
    found.violations
}

#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
}

impl Found {
    fn add(&mut self, path: &str, reason: impl Into<String>) {
        self.violations.push(Violation { path: path.to_owned(), reason: reason.into() });
    }

    fn message(&mut self, message: &DynamicMessage, json: &Json, path: &str) {
        let descriptor = message.descriptor();
        if descriptor.full_name() == ANY {
            // Of a type that is not known, nothing is known.
            if let Some(inner) = opened(message) {
                self.message(&inner, json, path);
            }
            return;
        }
        if is_well_known(&descriptor) {
            return;
        }
        let rules = rules::of(&descriptor);
        for name in &rules.required_oneofs {
            let Some(oneof) = descriptor.oneofs().find(|oneof| oneof.name() == name) else { continue };
            if !oneof.fields().any(|field| message.has_field(&field)) {
                let fields: Vec<_> = oneof.fields().map(|field| field.name().to_owned()).collect();
                self.add(path, format!("{name} is required: one of {}", fields.join(", ")));
            }
        }
        let none = FieldRules::default();
        for field in descriptor.fields() {
            let rules = rules.fields.get(&field.number()).unwrap_or(&none);
            let (key, json) = spelled(&field, json);
            self.field(message, &field, rules, json, &join(path, key));
        }
    }

    fn field(&mut self, of: &DynamicMessage, field: &FieldDescriptor, rules: &FieldRules, json: &Json, path: &str) {
        if !of.has_field(field) {
            // A field of a oneof is required only where it is the chosen one.
            if rules.is_required && field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic()) {
                return self.add(path, "is required");
            }
            // What is absent and can be told from its default breaks no other rule.
            if field.supports_presence() {
                return;
            }
        }
        let value = of.get_field(field);
        match &*value {
            Value::List(items) if !(rules.ignores_empty && items.is_empty()) => {
                self.size(items.len(), "item", rules, path);
                self.items(items, field, rules, json, path);
            }
            Value::Map(entries) if !(rules.ignores_empty && entries.is_empty()) => {
                self.size(entries.len(), "entry", rules, path);
                for (key, value) in entries {
                    let text = key_text(key);
                    let (path, json) = (join(path, &text), json.get(&text).unwrap_or(&Json::Null));
                    for check in rules.keys.iter().flat_map(|rules| &rules.checks) {
                        self.check(check, &Value::String(text.clone()), None, "its key ", &path);
                    }
                    let none = FieldRules::default();
                    self.single(value, None, rules.values.as_deref().unwrap_or(&none), json, &path);
                }
            }
            Value::List(_) | Value::Map(_) => {}
            value => self.single(value, Some(field), rules, json, path),
        }
    }

    fn size(&mut self, size: usize, noun: &str, rules: &FieldRules, path: &str) {
        let size = size as u64;
        if let Some(min) = rules.size.min.filter(|min| size < *min) {
            let words = if size == 0 { "must not be empty: ".to_owned() } else { format!("has {size}, ") };
            self.add(path, format!("{words}at least {min} {noun} is required"));
        }
        if let Some(max) = rules.size.max.filter(|max| size > *max) {
            self.add(path, format!("has {size}, at most {max} are allowed"));
        }
    }

    fn items(&mut self, items: &[Value], field: &FieldDescriptor, rules: &FieldRules, json: &Json, path: &str) {
        let none = FieldRules::default();
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let json = json.get(index).unwrap_or(&Json::Null);
            if rules.is_unique && !seen.insert(format!("{item:?}")) {
                self.add(&path, "is there twice");
            }
            self.single(item, Some(field), rules.items.as_deref().unwrap_or(&none), json, &path);
        }
    }

    fn single(&mut self, value: &Value, field: Option<&FieldDescriptor>, rules: &FieldRules, json: &Json, path: &str) {
        let unwrapped = match value {
            Value::Message(message) if is_wrapper(message) => message.get_field_by_name("value"),
            _ => None,
        };
        let scalar = unwrapped.as_deref().unwrap_or(value);
        if !(rules.ignores_empty && is_empty(scalar)) {
            for check in &rules.checks {
                self.check(check, scalar, field, "", path);
            }
        }
        if let Value::Message(message) = value
            && !rules.is_skipped
        {
            self.message(message, json, path);
        }
    }

    fn check(&mut self, check: &Check, value: &Value, field: Option<&FieldDescriptor>, whose: &str, path: &str) {
        if let Some(reason) = broken(check, value, field) {
            self.add(path, format!("{whose}{reason}"));
        }
    }
}

/// The message in an `Any`, if its type is known and its bytes are right.
pub(super) fn opened(any: &DynamicMessage) -> Option<DynamicMessage> {
    let (type_url, value) = (any.get_field_by_name("type_url")?, any.get_field_by_name("value")?);
    let name = type_url.as_str()?.rsplit('/').next()?;
    let descriptor = any.descriptor().parent_pool().get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, value.as_bytes()?.clone()).ok()
}

/// How the file spells the field, and what stands there.
fn spelled<'a>(field: &'a FieldDescriptor, json: &'a Json) -> (&'a str, &'a Json) {
    let names = [field.name(), field.json_name()];
    let entry = names.into_iter().find_map(|name| Some((name, json.get(name)?)));
    entry.unwrap_or((field.name(), &Json::Null))
}

pub(super) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn is_wrapper(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    descriptor.full_name().starts_with("google.protobuf.")
        && descriptor.name().len() > 5
        && descriptor.name().ends_with("Value")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::EnumNumber(number) => *number == 0,
        other => number(other) == Some(0.0),
    }
}

/// Why `value` breaks `check`, if it does.
fn broken(check: &Check, value: &Value, field: Option<&FieldDescriptor>) -> Option<String> {
    match (check, value) {
        (Check::Range(range), _) => out_of_range(*range, number(value)?),
        (Check::DefinedOnly, Value::EnumNumber(number)) => {
            let Kind::Enum(kind) = field?.kind() else { return None };
            kind.get_value(*number).is_none().then(|| format!("{number} is no value of {}", kind.name()))
        }
        (Check::In(allowed), _) => {
            let words = || allowed.iter().map(|value| shown(value, field)).collect::<Vec<_>>().join(", ");
            let is_in = allowed.iter().any(|allowed| is_same(allowed, value));
            (!is_in).then(|| format!("{} is not allowed, allowed are {}", shown(value, field), words()))
        }
        (Check::NotIn(refused), _) => refused
            .iter()
            .any(|refused| is_same(refused, value))
            .then(|| format!("must not be {}", shown(value, field))),
        (Check::Const(wanted), _) => {
            (!is_same(wanted, value)).then(|| format!("must be {}, not {}", shown(wanted, field), shown(value, field)))
        }
        (Check::MinBytes(min), Value::Bytes(bytes)) => too_short(bytes.len(), *min, "bytes"),
        (Check::MaxBytes(max), Value::Bytes(bytes)) => too_long(bytes.len(), *max, "bytes"),
        (_, Value::String(text)) => broken_text(check, text),
        _ => None,
    }
}

fn broken_text(check: &Check, text: &str) -> Option<String> {
    let shown = || shown(&Value::String(text.to_owned()), None);
    match check {
        Check::MinLen(min) => too_short(text.chars().count(), *min, "characters"),
        Check::MaxLen(max) => too_long(text.chars().count(), *max, "characters"),
        Check::MinBytes(min) => too_short(text.len(), *min, "bytes"),
        Check::MaxBytes(max) => too_long(text.len(), *max, "bytes"),
        Check::Prefix(part) => {
            (!text.starts_with(part)).then(|| format!("must begin with {part:?}, unlike {}", shown()))
        }
        Check::Suffix(part) => (!text.ends_with(part)).then(|| format!("must end with {part:?}, unlike {}", shown())),
        Check::Contains(part) => (!text.contains(part)).then(|| format!("must contain {part:?}, unlike {}", shown())),
        Check::NotContains(part) => {
            text.contains(part).then(|| format!("must not contain {part:?}, unlike {}", shown()))
        }
        Check::Ip => {
            text.parse::<std::net::IpAddr>().is_err().then(|| format!("must be an IP address, not {}", shown()))
        }
        Check::PathPrefix => {
            let is_right = text.len() > 1 && !text.contains(['?', '#']) && !text.ends_with('/');
            (!is_right).then(|| {
                format!("must be a path that does not end with \"/\", without \"?\" and \"#\", unlike {}", shown())
            })
        }
        Check::Pattern(pattern) => {
            (!pattern.is_match(text)).then(|| format!("must match {}, unlike {}", pattern.as_str(), shown()))
        }
        Check::HeaderName { is_strict } => {
            let name = text.strip_prefix(':').unwrap_or(text);
            // Where it is not strict, an empty name is allowed too.
            let is_right = if *is_strict { is_token(name) } else { is_one_line(text) };
            (!is_right).then(|| format!("must be the name of a header, not {}", shown()))
        }
        Check::HeaderValue { is_strict } => {
            let is_right =
                is_one_line(text) && !(*is_strict && text.chars().any(|c| c != '\t' && c.is_ascii_control()));
            (!is_right).then(|| format!("must be the value of a header, not {}", shown()))
        }
        _ => None,
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`,".contains(&c))
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\0', '\n', '\r'])
}

fn too_short(length: usize, min: u64, unit: &str) -> Option<String> {
    match length {
        0 if min > 0 => Some("must not be empty".to_owned()),
        length if (length as u64) < min => Some(format!("has {length} {unit}, at least {min} are required")),
        _ => None,
    }
}

fn too_long(length: usize, max: u64, unit: &str) -> Option<String> {
    (length as u64 > max).then(|| format!("has {length} {unit}, at most {max} are allowed"))
}

fn out_of_range(range: Range, number: f64) -> Option<String> {
    let Range { gt, gte, lt, lte } = range;
    let is_above = gt.is_none_or(|bound| number > bound) && gte.is_none_or(|bound| number >= bound);
    let is_below = lt.is_none_or(|bound| number < bound) && lte.is_none_or(|bound| number <= bound);
    // Bounds the wrong way round allow what is outside of them.
    let is_outside = matches!((gt.or(gte), lt.or(lte)), (Some(low), Some(high)) if low > high);
    let is_right = if is_outside { is_above || is_below } else { is_above && is_below };
    let bounds = [("> ", gt), (">= ", gte), ("< ", lt), ("<= ", lte)];
    let words: Vec<_> = bounds.iter().filter_map(|(sign, bound)| bound.map(|bound| format!("{sign}{bound}"))).collect();
    let joined = words.join(if is_outside { " or " } else { " and " });
    (!is_right).then(|| format!("{number} is out of range, allowed is {joined}"))
}

fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::I32(left), Value::EnumNumber(right)) => left == right,
        _ => left == right,
    }
}

fn shown(value: &Value, field: Option<&FieldDescriptor>) -> String {
    let of_enum = |number: i32| match field?.kind() {
        Kind::Enum(kind) => kind.get_value(number).map(|value| value.name().to_owned()),
        _ => None,
    };
    match value {
        Value::String(text) if text.chars().count() > 80 => format!("{:?}…", text.chars().take(80).collect::<String>()),
        Value::String(text) => format!("{text:?}"),
        Value::Bool(value) => value.to_string(),
        Value::EnumNumber(number) | Value::I32(number) => of_enum(*number).unwrap_or_else(|| number.to_string()),
        other => number(other).map_or_else(|| "this value".to_owned(), |number| number.to_string()),
    }
}
