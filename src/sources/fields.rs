//! The reader of a resource's fields: each accessor says what is allowed, and reports what is not.
//!
//! Comes in: a [`Field`], which is a node and its path. Goes out: the value, or `None` and a fault in the report. A
//! `null` entry of a mapping counts as absent (Istio: R1.5); a `null` list item or required field does not.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::report::Report;
use super::yaml::{Key, Node, Value};
use crate::protobuf::did_you_mean;

/// A value and the path that leads to it.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub path: String,
    pub node: &'n Node,
}

/// A mapping whose keys were checked.
pub(super) struct Object<'n> {
    pub path: String,
    entries: &'n [(Key, Node)],
}

impl<'n> Object<'n> {
    /// The entry `key`; `null` is absent.
    pub(super) fn get(&self, key: &str) -> Option<Field<'n>> {
        let (_, node) = self.entries.iter().find(|(known, _)| known.text == key)?;
        (node.value != Value::Null).then(|| Field { path: join(&self.path, key), node })
    }

    pub(super) fn required(&self, key: &str, report: &mut Report<'_>) -> Option<Field<'n>> {
        let field = self.get(key);
        if field.is_none() {
            report.fault(&join(&self.path, key), "is required");
        }
        field
    }

    /// All entries but the `null` ones.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.all_entries().filter(|(_, field)| !field.is_null())
    }

    /// All entries, the `null` ones too.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.entries.iter().map(|(key, node)| (key.text.as_str(), Field { path: join(&self.path, &key.text), node }))
    }

    /// The entry `key`, one of the names in `choices`; where absent and where mistaken, the first of them.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], report: &mut Report<'_>) -> T {
        self.get(key).and_then(|field| field.choice(choices, report)).unwrap_or(choices[0].1)
    }

    /// Which of `keys` are present.
    pub(super) fn present<'k>(&self, keys: &[&'k str]) -> Vec<&'k str> {
        keys.iter().copied().filter(|key| self.get(key).is_some()).collect()
    }
}

impl<'n> Field<'n> {
    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// A mapping that holds no keys but `known`.
    pub(super) fn object(&self, known: &[&str], report: &mut Report<'_>) -> Option<Object<'n>> {
        self.object_with(known, |_| None, report)
    }

    /// As [`Field::object`]; `suggest` knows better than the alphabet what some keys were meant to be.
    pub(super) fn object_with(
        &self,
        known: &[&str],
        suggest: impl Fn(&str) -> Option<String>,
        report: &mut Report<'_>,
    ) -> Option<Object<'n>> {
        let object = self.any_object(report)?;
        for (key, _) in object.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let suggestion = suggest(&key.text).unwrap_or_else(|| did_you_mean(&key.text, known.iter().copied()));
            let suggestion =
                if suggestion.is_empty() { format!("; known are {}", known.join(", ")) } else { suggestion };
            report.fault(&join(&self.path, &key.text), format!("unknown field{suggestion}"));
        }
        Some(object)
    }

    /// A mapping with any keys.
    pub(super) fn any_object(&self, report: &mut Report<'_>) -> Option<Object<'n>> {
        self.as_object().or_else(|| self.mistyped("an object", report))
    }

    /// A mapping with any keys; nothing is told where it is none.
    pub(super) fn as_object(&self) -> Option<Object<'n>> {
        let Value::Map(entries) = &self.node.value else { return None };
        Some(Object { path: self.path.clone(), entries })
    }

    /// A list of at most `limit` items, none of them `null`.
    pub(super) fn list(&self, limit: usize, report: &mut Report<'_>) -> Option<Vec<Field<'n>>> {
        let Value::List(items) = &self.node.value else { return self.mistyped("a list", report) };
        if items.len() > limit {
            report.fault(&self.path, format!("has {} items, at most {limit} are allowed", items.len()));
        }
        let field = |(index, node)| Field { path: format!("{}[{index}]", self.path), node };
        let (nulls, fields): (Vec<_>, Vec<_>) =
            items.iter().enumerate().map(field).partition(|field| field.node.value == Value::Null);
        for null in nulls {
            report.fault(&null.path, "must not be null");
        }
        Some(fields)
    }

    pub(super) fn text(&self, report: &mut Report<'_>) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => {
                // YAML reads `y`, `no` and `on` as booleans, as kubectl does.
                report.fault(&self.path, format!("must be text, not {}: put it in quotes", self.shown()));
                None
            }
            _ => self.mistyped("text", report),
        }
    }

    /// Text of so many characters; more bytes than `length` ends with are refused too, as one layer of Istio's
    /// validation counts the ones and the other one the others.
    pub(super) fn text_of(&self, length: RangeInclusive<usize>, report: &mut Report<'_>) -> Option<&'n str> {
        let end = *length.end();
        let text = self.characters(length.clone(), report)?;
        if text.len() > end {
            report.fault(&self.path, format!("must have at most {end} bytes, has {}", text.len()));
            return None;
        }
        Some(text)
    }

    /// Text of so many characters, of whatever bytes.
    pub(super) fn characters(&self, length: RangeInclusive<usize>, report: &mut Report<'_>) -> Option<&'n str> {
        let text = self.text(report)?;
        let count = text.chars().count();
        if length.contains(&count) {
            return Some(text);
        }
        let (start, end) = length.into_inner();
        report.fault(&self.path, format!("must have {start} to {end} characters, has {count}"));
        None
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<i64>, report: &mut Report<'_>) -> Option<i64> {
        let Value::Number(number) = &self.node.value else { return self.mistyped("an integer", report) };
        let whole = |number: &f64| number.fract() == 0.0;
        // `1.0` is an integer to Kubernetes; a float beyond i64 saturates and so stays out of range.
        let integer = number.as_i64().or_else(|| number.as_f64().filter(whole).map(|number| number as i64));
        match integer {
            Some(integer) if range.contains(&integer) => Some(integer),
            Some(_) => {
                let (start, end) = range.into_inner();
                report.fault(&self.path, format!("{number} is out of range, allowed is {start} to {end}"));
                None
            }
            None => self.mistyped("an integer", report),
        }
    }

    pub(super) fn port(&self, report: &mut Report<'_>) -> Option<u16> {
        self.integer(1..=65535, report).and_then(|port| u16::try_from(port).ok())
    }

    /// One of the names in `choices`, case-sensitive.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let allowed = names().collect::<Vec<_>>().join(", ");
        let Some(text) = self.node.as_text() else {
            report.fault(&self.path, format!("must be one of {allowed}, not {}", self.shown()));
            return None;
        };
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let suggestion = did_you_mean(text, names());
            report.fault(&self.path, format!("\"{text}\" is not a known value, allowed are {allowed}{suggestion}"));
        }
        chosen
    }

    /// A mapping from text to text.
    pub(super) fn text_map(&self, report: &mut Report<'_>) -> Option<BTreeMap<String, String>> {
        let object = self.any_object(report)?;
        let texts = object.entries().filter_map(|(key, field)| Some((key.to_owned(), field.text(report)?.to_owned())));
        Some(texts.collect())
    }

    fn mistyped<T>(&self, wanted: &str, report: &mut Report<'_>) -> Option<T> {
        report.fault(&self.path, format!("must be {wanted}, not {}", self.shown()));
        None
    }

    /// The value in an error: scalars as they are, long ones cut, the rest by its type.
    fn shown(&self) -> String {
        match &self.node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(text) => shown_text(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "an object".to_owned(),
        }
    }
}

/// `text` in quotes, its end cut where it is long.
pub(super) fn shown_text(text: &str) -> String {
    const LIMIT: usize = 80;
    if text.chars().count() <= LIMIT {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(LIMIT).collect::<String>())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
