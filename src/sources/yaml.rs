//! A file's text as trees of values that know where they stand.
//!
//! Comes in: the text of a YAML or JSON file. Goes out: one [`Node`] per document that is not empty, or the one place
//! where the text is broken. Duplicate keys and alias bombs are broken text. Nothing here knows what a field means.

use serde_json::{Map, Number};
use serde_saphyr::Spanned;

/// A place in a file, both counted from 1; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub text: String,
    pub place: Place,
}

/// The text is no YAML. The writer has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct BrokenText {
    pub place: Place,
    pub reason: String,
}

/// Lists and mappings in one another, at most.
pub(super) const MAX_DEPTH: usize = 128;

/// Reads all documents of `text`; empty ones are left out. Recursive: wants [`MAX_DEPTH`] times 64 KiB of stack.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, BrokenText> {
    // As kubectl reads YAML: a leading zero means octal.
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        // The size of the file bounds the rest.
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: usize::MAX,
            max_nodes: usize::MAX,
            max_events: usize::MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
    };
    let documents: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options).map_err(broken)?;
    Ok(documents.into_iter().map(Node::from).filter(|node| node.value != Value::Null).collect())
}

fn broken(error: serde_saphyr::Error) -> BrokenText {
    let place = error.location().map(Place::from).unwrap_or_default();
    let text = error.without_snippet().to_string();
    // The place is told apart from the reason; the parser's own "at line 3, column 4" would say it twice.
    let reason = text.lines().next().unwrap_or_default();
    let reason = reason.split(" at line ").next().unwrap_or(reason);
    // Advice to programmers, not to the file's writer.
    let reason = reason.split(", set DuplicateKeyPolicy").next().unwrap_or(reason);
    BrokenText { place, reason: format!("broken YAML: {reason}") }
}

impl Node {
    /// The entry `key` of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(known, _)| known.text == key)
    }

    /// The text of a scalar, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.text.clone(), node.to_json()));
                Map::from_iter(entries).into()
            }
        }
    }

    /// The same tree without what stands in it: where everything is, for [`Node::locate`]. Below `spec` only `fields`.
    pub(super) fn outline(&self, fields: &[&str]) -> Node {
        let Value::Map(entries) = &self.value else { return self.bare() };
        let spec = entries.iter().find(|(key, _)| key.text == "spec").map(|(key, spec)| {
            let Value::Map(entries) = &spec.value else { return (key.clone(), spec.bare()) };
            let kept = entries.iter().filter(|(key, _)| fields.contains(&key.text.as_str()));
            let kept = kept.map(|(key, node)| (key.clone(), node.bare())).collect();
            (key.clone(), Node { value: Value::Map(kept), place: spec.place })
        });
        Node { value: Value::Map(spec.into_iter().collect()), place: self.place }
    }

    fn bare(&self) -> Node {
        let value = match &self.value {
            Value::List(items) => Value::List(items.iter().map(Node::bare).collect()),
            Value::Map(entries) => Value::Map(entries.iter().map(|(key, node)| (key.clone(), node.bare())).collect()),
            _ => Value::Null,
        };
        Node { value, place: self.place }
    }

    /// The place nearest to `path` (such as `spec.match[0].ports`): of its key, its list item, or of the deepest
    /// ancestor that exists.
    pub(super) fn locate(&self, path: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        let mut rest = path;
        while !rest.is_empty() {
            let Some((next, next_place, tail)) = node.step(rest) else { break };
            (node, place, rest) = (next, next_place, tail);
        }
        place
    }

    /// One step along `path`: the child, its place and what is left. A key may hold dots, so the longest key wins.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(&'n Node, Place, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.value {
            Value::List(items) => {
                let (index, tail) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.place, tail))
            }
            Value::Map(entries) => entries
                .iter()
                .filter_map(|(key, node)| Some((key, node, after_key(path, &key.text)?)))
                .max_by_key(|(key, ..)| key.text.len())
                .map(|(key, node, tail)| (node, key.place, tail)),
            _ => None,
        }
    }
}

/// What is left of `path` after `key`. Protobuf's JSON spells a field in two ways; a path may have the other one.
fn after_key<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let tail = path.strip_prefix(key).or_else(|| path.strip_prefix(snake_case(key)?.as_str()))?;
    (tail.is_empty() || tail.starts_with(['.', '['])).then_some(tail)
}

fn snake_case(key: &str) -> Option<String> {
    let has_humps = key.contains(|c: char| c.is_ascii_uppercase());
    let spelled = |c: char| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] };
    has_humps.then(|| key.chars().flat_map(spelled).collect())
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self { line: narrow(location.line()), column: narrow(location.column()) }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: spanned.referenced.into(), value: spanned.value }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse_one(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn a_document_becomes_json_and_keeps_its_places() {
        let node =
            parse_one("spec:\n  match:\n  - ports:\n    - {number: 80}\n  config: {a.b: [1, x, ~, true, 1.5]}\n");
        assert_eq!(
            node.to_json(),
            json!({"spec": {"match": [{"ports": [{"number": 80}]}], "config": {"a.b": [1, "x", null, true, 1.5]}}})
        );
        assert_eq!(node.locate("spec.match[0].ports[0].number"), Place { line: 4, column: 8 });
        assert_eq!(node.locate("spec.match[0].mode"), Place { line: 3, column: 5 });
        assert_eq!(node.locate("spec.config.a.b[1]"), Place { line: 5, column: 21 });
        assert_eq!(node.locate("spec.url"), Place { line: 1, column: 1 });
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        let documents = parse("# first\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n").unwrap();
        assert_eq!(documents.iter().map(Node::to_json).collect::<Vec<_>>(), [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(documents[1].locate("b"), Place { line: 8, column: 1 });
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("# only words\n").unwrap(), []);
    }

    #[test]
    fn json_is_read_as_well() {
        let text = "{\n\t\"a\": [1, {\"b\": \"c\\u00e9\"}]\n}\n";
        assert_eq!(parse_one(text).to_json(), json!({"a": [1, {"b": "cé"}]}));
    }

    #[test]
    fn broken_text_is_named_by_its_place() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.place.line >= 2, "{error:?}");
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(
            (error.place, error.reason.as_str()),
            (Place { line: 3, column: 1 }, "broken YAML: duplicate mapping key: a")
        );
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn quoted_scalars_stay_text_and_numbers_stay_numbers() {
        let node = parse_one("a: '1'\nb: 0644\nc: 18446744073709551615\nd: \"yes\"\ne: 2024-01-01T00:00:00Z\n");
        assert_eq!(
            node.to_json(),
            json!({"a": "1", "b": 420, "c": 18_446_744_073_709_551_615_u64, "d": "yes", "e": "2024-01-01T00:00:00Z"})
        );
    }
}
