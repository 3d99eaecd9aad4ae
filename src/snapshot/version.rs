//! Versions: equal content gives equal text, on every replica and after every restart.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A hash of content. Computed from a canonical source, never from encoded bytes (protobuf maps have no order).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Arc<str>);

impl Version {
    /// The version of a value: maps count by sorted key.
    pub fn of(source: &Value) -> Self {
        let mut text = String::new();
        write_canonical(source, &mut text);
        Self::of_text(&text)
    }

    /// The version of a text.
    pub fn of_text(text: &str) -> Self {
        Self(hex::encode(&Sha256::digest(text.as_bytes())[..16]).into())
    }

    /// The version of a set of named resources, for state-of-the-world responses.
    pub fn of_set<'a>(resources: impl Iterator<Item = (&'a str, &'a Version)>) -> Self {
        let mut text = String::new();
        for (name, version) in resources {
            let _ = writeln!(text, "{}:{name} {version}", name.len());
        }
        Self::of_text(&text)
    }

    /// A version as a client reports it.
    pub fn from_client(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, field) in fields {
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                write_canonical(field, out);
                out.push(',');
            }
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_is_no_content_but_the_order_of_items_is() {
        let version = Version::of(&json!({"a": 1, "b": [1, 2]}));
        assert_eq!(version, Version::of(&json!({"b": [1, 2], "a": 1})));
        assert_ne!(version, Version::of(&json!({"a": 1, "b": [2, 1]})));
        assert_eq!(version.as_str().len(), 32);
    }
}
