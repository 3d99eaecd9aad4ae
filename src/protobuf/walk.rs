//! A message and all messages in it, one after the other, those in an `Any` of a known type too.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::check::{ANY, join};
use super::envoy::descriptor;
use super::refusal::opened;

/// One message on the way.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    message: &'a DynamicMessage,
    /// Fields as protobuf spells them, such as `filter_chains[0].filters[0].typed_config`.
    pub path: &'a str,
}

/// Calls `visit` for the message `full_name` in `bytes` and for each one in it, outer ones first. Bytes that are no
/// such message hold none.
pub fn walk(full_name: &str, bytes: &[u8], visit: &mut dyn FnMut(&Part<'_>)) {
    if let Ok(message) = DynamicMessage::decode(descriptor(full_name), bytes) {
        message_at(&message, "", visit);
    }
}

fn message_at(message: &DynamicMessage, path: &str, visit: &mut dyn FnMut(&Part<'_>)) {
    if message.descriptor().full_name() == ANY {
        if let Some(inner) = opened(message) {
            message_at(&inner, path, visit);
        }
        return;
    }
    visit(&Part { message, path });
    for (field, value) in message.fields() {
        value_at(value, &join(path, field.name()), visit);
    }
}

fn value_at(value: &Value, path: &str, visit: &mut dyn FnMut(&Part<'_>)) {
    match value {
        Value::Message(message) => message_at(message, path, visit),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                value_at(item, &format!("{path}[{index}]"), visit);
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                value_at(item, &join(path, &super::refusal::key_text(key)), visit);
            }
        }
        _ => {}
    }
}

impl Part<'_> {
    /// Such as `envoy.config.route.v3.RouteAction`.
    pub fn type_name(&self) -> String {
        self.message.descriptor().full_name().to_owned()
    }

    pub fn has(&self, field: &str) -> bool {
        self.message.has_field_by_name(field)
    }

    /// A text that is set and not empty.
    pub fn text(&self, field: &str) -> Option<String> {
        let value = self.message.get_field_by_name(field)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The number of an enum's value.
    pub fn enum_number(&self, field: &str) -> Option<i32> {
        self.message.has_field_by_name(field).then(|| self.message.get_field_by_name(field)?.as_enum_number())?
    }

    /// Asks `question` of the message in `field`, opened if it is an `Any`.
    pub fn ask<T>(&self, field: &str, question: impl FnOnce(&Part<'_>) -> T) -> Option<T> {
        let value = self.message.has_field_by_name(field).then(|| self.message.get_field_by_name(field))??;
        let message = value.as_message()?;
        let path = join(self.path, field);
        let opened = if message.descriptor().full_name() == ANY { Some(opened(message)?) } else { None };
        Some(question(&Part { message: opened.as_ref().unwrap_or(message), path: &path }))
    }

    /// Asks `question` of the last message of a list; `None` where the list is empty.
    pub fn ask_last<T>(&self, field: &str, question: impl FnOnce(&Part<'_>) -> T) -> Option<T> {
        let value = self.message.get_field_by_name(field)?;
        let items = value.as_list()?;
        let path = format!("{}[{}]", join(self.path, field), items.len().checked_sub(1)?);
        Some(question(&Part { message: items.last()?.as_message()?, path: &path }))
    }

    /// Asks `question` of each message of a list.
    pub fn ask_each<T>(&self, field: &str, question: impl Fn(&Part<'_>) -> T) -> Vec<T> {
        let Some(value) = self.message.get_field_by_name(field) else { return Vec::new() };
        let items = value.as_list().unwrap_or_default().iter().filter_map(Value::as_message).enumerate();
        let ask = |(index, message)| {
            let path = format!("{}[{index}]", join(self.path, field));
            question(&Part { message, path: &path })
        };
        items.map(ask).collect()
    }

    /// The texts of a list.
    pub fn texts(&self, field: &str) -> Vec<String> {
        let Some(value) = self.message.get_field_by_name(field) else { return Vec::new() };
        let texts = value.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// The path of a field of this message.
    pub fn path_of(&self, field: &str) -> String {
        join(self.path, field)
    }
}
