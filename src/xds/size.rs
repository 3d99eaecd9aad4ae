//! How much a client may say of itself and ask for: over the limit is refused with what was too much, not cut.
//!
//! Pure.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::Value;
use envoy_types::pb::google::protobuf::value::Kind;

use crate::snapshot::ResourceType;

/// Of a node's id, cluster and namespace, of a label's key and value, of a resource's name and version. Kubernetes
/// stays below 320, xDS names in the wild below 500.
const MAX_TEXT_BYTES: usize = 2048;
/// Kubernetes objects carry a dozen.
const MAX_LABELS: usize = 256;
/// Names that a stream may ask for, and hold, of one type: EDS has one per cluster, of which the largest fleets have
/// some 10,000.
const MAX_NAMES: usize = 50_000;
/// The same of ECDS, where each name is answered with a resource, whether anything stands behind it or not. A proxy asks for
/// one per plugin, or for a few per listener.
const MAX_EXTENSION_NAMES: usize = 5_000;
/// Of the names of all types that a stream asks for, together: each is kept several times. The names of the largest
/// fleets come to a tenth of it.
const MAX_NAME_BYTES: usize = 8 << 20;

/// The client's request is too large to be kept. Not mended by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error("{what} has {bytes} bytes; at most {MAX_TEXT_BYTES} are taken")]
    Text { what: &'static str, bytes: usize },

    #[error("node.metadata.LABELS has {count} entries; at most {MAX_LABELS} are taken")]
    Labels { count: usize },

    #[error("{count} resource names of one type; a stream may ask for at most {at_most}")]
    Names { count: usize, at_most: usize },

    #[error("resource names of {bytes} bytes; a stream may ask for at most {MAX_NAME_BYTES}")]
    NameBytes { bytes: usize },
}

pub fn check_node(node: &Node) -> Result<(), TooMuch> {
    check_text("node.id", &node.id)?;
    check_text("node.cluster", &node.cluster)?;
    let Some(metadata) = &node.metadata else { return Ok(()) };
    for (key, what) in [("NAMESPACE", "node.metadata.NAMESPACE"), ("NAME", "node.metadata.NAME")] {
        check_value(what, metadata.fields.get(key))?;
    }
    let Some(Value { kind: Some(Kind::StructValue(labels)) }) = metadata.fields.get("LABELS") else { return Ok(()) };
    if labels.fields.len() > MAX_LABELS {
        return Err(TooMuch::Labels { count: labels.fields.len() });
    }
    for (key, value) in &labels.fields {
        check_text("a key of node.metadata.LABELS", key)?;
        check_value("a value of node.metadata.LABELS", Some(value))?;
    }
    Ok(())
}

/// What a stream asks for already and goes on asking for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Names of the type that a request is about.
    pub count: usize,
    /// Of the names of all types.
    pub bytes: usize,
}

/// `names` of one request, beside what was `asked` before.
pub fn check_names<'a>(
    of: ResourceType,
    asked: Asked,
    names: impl ExactSizeIterator<Item = &'a String> + Clone,
) -> Result<(), TooMuch> {
    let at_most = if of == ResourceType::ExtensionConfig { MAX_EXTENSION_NAMES } else { MAX_NAMES };
    let count = asked.count + names.len();
    if count > at_most {
        return Err(TooMuch::Names { count, at_most });
    }
    let bytes = asked.bytes + names.clone().map(String::len).sum::<usize>();
    if bytes > MAX_NAME_BYTES {
        return Err(TooMuch::NameBytes { bytes });
    }
    names.into_iter().try_for_each(|name| check_text("a resource name", name))
}

fn check_value(what: &'static str, value: Option<&Value>) -> Result<(), TooMuch> {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => check_text(what, text),
        _ => Ok(()),
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), TooMuch> {
    if text.len() > MAX_TEXT_BYTES { Err(TooMuch::Text { what, bytes: text.len() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Struct;

    use super::*;

    fn labelled(labels: impl IntoIterator<Item = (String, String)>) -> Node {
        let string = |text| Value { kind: Some(Kind::StringValue(text)) };
        let labels = Struct { fields: labels.into_iter().map(|(key, value)| (key, string(value))).collect() };
        let labels = Value { kind: Some(Kind::StructValue(labels)) };
        Node { metadata: Some(Struct { fields: [("LABELS".to_owned(), labels)].into() }), ..Node::default() }
    }

    #[test]
    fn a_node_that_says_too_much_is_told_what() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let words = |node: &Node| check_node(node).unwrap_err().to_string();
        assert_eq!(
            words(&Node { id: long.clone(), ..Node::default() }),
            "node.id has 2049 bytes; at most 2048 are taken"
        );
        assert_eq!(
            words(&labelled([("app".to_owned(), long)])),
            "a value of node.metadata.LABELS has 2049 bytes; at most 2048 are taken"
        );
        let many = (0..=MAX_LABELS).map(|n| (n.to_string(), String::new()));
        assert_eq!(words(&labelled(many)), "node.metadata.LABELS has 257 entries; at most 256 are taken");
        assert_eq!(check_node(&labelled([("app".to_owned(), "web".to_owned())])), Ok(()));
    }

    #[test]
    fn names_count_together_with_those_of_earlier_requests() {
        let names = ["a".to_owned(), "b".to_owned()];
        let check = |of, count, bytes| check_names(of, Asked { count, bytes }, names.iter());
        assert_eq!(check(ResourceType::Endpoint, MAX_NAMES - 2, MAX_NAME_BYTES - 2), Ok(()));
        for (of, at_most) in [(ResourceType::Endpoint, MAX_NAMES), (ResourceType::ExtensionConfig, MAX_EXTENSION_NAMES)]
        {
            assert_eq!(check(of, at_most - 1, 0), Err(TooMuch::Names { count: at_most + 1, at_most }));
        }
        let too_long = Err(TooMuch::NameBytes { bytes: MAX_NAME_BYTES + 1 });
        assert_eq!(check(ResourceType::Endpoint, 0, MAX_NAME_BYTES - 1), too_long);
    }
}
