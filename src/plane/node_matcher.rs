//! `envoy.type.matcher.v3.NodeMatcher`: which proxies a question is about.
//!
//! Pure. What is not understood is an error and never a match.

use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern as StringPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::struct_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher, StructMatcher, ValueMatcher};
use regex::{Regex, RegexBuilder};

use crate::model::Proxy;

/// Compiled forms of a regular expression that may be large.
const MAX_REGEX_BYTES: usize = 64 << 10;

/// A matcher that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMatcher {
    #[error("{field}: a pattern is missing")]
    NoPattern { field: &'static str },

    #[error("safe_regex.regex {regex:?}: {cause}")]
    Regex { regex: String, cause: String },

    #[error("node_metadatas.path {path:?}: only NAMESPACE, NAME and one of LABELS are kept of a node's metadata")]
    Path { path: Vec<String> },

    #[error("{what} is not offered; node metadata holds NAMESPACE, NAME and LABELS, which are texts")]
    NotOffered { what: &'static str },
}

/// Some of several: no matcher at all matches every proxy.
#[derive(Debug)]
pub struct Matchers(Vec<Matcher>);

#[derive(Debug)]
struct Matcher {
    node_id: Option<Text>,
    metadata: Vec<(Vec<String>, Value)>,
}

#[derive(Debug)]
enum Value {
    Present(bool),
    Text(Text),
}

#[derive(Debug)]
enum Text {
    Exact { text: String, ignores_case: bool },
    Prefix { text: String, ignores_case: bool },
    Suffix { text: String, ignores_case: bool },
    Contains { text: String, ignores_case: bool },
    Regex(Regex),
}

impl Matchers {
    pub fn new(matchers: &[NodeMatcher]) -> Result<Self, InvalidMatcher> {
        matchers.iter().map(Matcher::new).collect::<Result<_, _>>().map(Self)
    }

    pub fn matches(&self, proxy: &Proxy) -> bool {
        self.0.is_empty() || self.0.iter().any(|matcher| matcher.matches(proxy))
    }
}

impl Matcher {
    fn new(matcher: &NodeMatcher) -> Result<Self, InvalidMatcher> {
        Ok(Self {
            node_id: matcher.node_id.as_ref().map(Text::new).transpose()?,
            metadata: matcher.node_metadatas.iter().map(path_and_value).collect::<Result<_, _>>()?,
        })
    }

    fn matches(&self, proxy: &Proxy) -> bool {
        self.node_id.as_ref().is_none_or(|text| text.matches(&proxy.node_id))
            && self.metadata.iter().all(|(path, value)| value.matches(metadata_of(proxy, path)))
    }
}

fn path_and_value(matcher: &StructMatcher) -> Result<(Vec<String>, Value), InvalidMatcher> {
    let key = |segment: &Option<Segment>| match segment {
        Some(Segment::Key(key)) => Ok(key.clone()),
        None => Err(InvalidMatcher::NoPattern { field: "node_metadatas.path" }),
    };
    let path: Vec<_> = matcher.path.iter().map(|segment| key(&segment.segment)).collect::<Result<_, _>>()?;
    // Of what is not kept nobody knows whether it is there.
    if !matches!(path.iter().map(String::as_str).collect::<Vec<_>>()[..], ["NAMESPACE" | "NAME"] | ["LABELS", _]) {
        return Err(InvalidMatcher::Path { path });
    }
    let value = matcher.value.as_ref().ok_or(InvalidMatcher::NoPattern { field: "node_metadatas.value" })?;
    Ok((path, Value::new(value)?))
}

/// What the node said, as far as it is kept.
fn metadata_of<'a>(proxy: &'a Proxy, path: &[String]) -> Option<&'a str> {
    match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["NAMESPACE"] => Some(&proxy.namespace),
        ["NAME"] => Some(&proxy.name).filter(|name| !name.is_empty()).map(String::as_str),
        ["LABELS", label] => proxy.labels.get(label).map(String::as_str),
        _ => None,
    }
}

impl Value {
    fn new(matcher: &ValueMatcher) -> Result<Self, InvalidMatcher> {
        match &matcher.match_pattern {
            Some(ValuePattern::PresentMatch(is_present)) => Ok(Self::Present(*is_present)),
            Some(ValuePattern::StringMatch(text)) => Text::new(text).map(Self::Text),
            Some(_) => Err(InvalidMatcher::NotOffered { what: "matching a value that is no text" }),
            None => Err(InvalidMatcher::NoPattern { field: "node_metadatas.value" }),
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        match self {
            Self::Present(is_present) => value.is_some() == *is_present,
            Self::Text(text) => value.is_some_and(|value| text.matches(value)),
        }
    }
}

impl Text {
    fn new(matcher: &StringMatcher) -> Result<Self, InvalidMatcher> {
        let ignores_case = matcher.ignore_case;
        let fold = |text: &String| if ignores_case { text.to_lowercase() } else { text.clone() };
        match &matcher.match_pattern {
            Some(StringPattern::Exact(text)) => Ok(Self::Exact { text: fold(text), ignores_case }),
            Some(StringPattern::Prefix(text)) => Ok(Self::Prefix { text: fold(text), ignores_case }),
            Some(StringPattern::Suffix(text)) => Ok(Self::Suffix { text: fold(text), ignores_case }),
            Some(StringPattern::Contains(text)) => Ok(Self::Contains { text: fold(text), ignores_case }),
            Some(StringPattern::SafeRegex(matcher)) => whole(&matcher.regex).map(Self::Regex),
            Some(StringPattern::Custom(_)) => Err(InvalidMatcher::NotOffered { what: "a custom matcher" }),
            None => Err(InvalidMatcher::NoPattern { field: "string match" }),
        }
    }

    fn matches(&self, value: &str) -> bool {
        let fold = |ignores_case| if ignores_case { value.to_lowercase() } else { value.to_owned() };
        match self {
            Self::Exact { text, ignores_case } => fold(*ignores_case) == *text,
            Self::Prefix { text, ignores_case } => fold(*ignores_case).starts_with(text.as_str()),
            Self::Suffix { text, ignores_case } => fold(*ignores_case).ends_with(text.as_str()),
            Self::Contains { text, ignores_case } => fold(*ignores_case).contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A `safe_regex` speaks of the whole text, and case is its own matter (`(?i)`).
fn whole(regex: &str) -> Result<Regex, InvalidMatcher> {
    let build = |regex: &str| RegexBuilder::new(regex).size_limit(MAX_REGEX_BYTES).build();
    // Alone at first: one with a parenthesis too many would close ours.
    let built = build(regex).and_then(|_| build(&format!("^(?:{regex})$")));
    built.map_err(|error| InvalidMatcher::Regex { regex: regex.to_owned(), cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
    use envoy_types::pb::envoy::r#type::matcher::v3::struct_matcher::PathSegment;

    use super::*;

    fn proxy() -> Proxy {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        Proxy { name: "edge".into(), labels, ..Proxy::named("edge-1", "shop") }
    }

    fn text(pattern: StringPattern) -> StringMatcher {
        StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
    }

    fn id(pattern: StringPattern) -> NodeMatcher {
        NodeMatcher { node_id: Some(text(pattern)), node_metadatas: Vec::new() }
    }

    fn metadata(path: &[&str], pattern: ValuePattern) -> NodeMatcher {
        let path = path.iter().map(|key| PathSegment { segment: Some(Segment::Key((*key).to_owned())) }).collect();
        let value = Some(ValueMatcher { match_pattern: Some(pattern) });
        NodeMatcher { node_id: None, node_metadatas: vec![StructMatcher { path, value }] }
    }

    fn is_meant(matchers: &[NodeMatcher]) -> bool {
        Matchers::new(matchers).unwrap().matches(&proxy())
    }

    #[test]
    fn a_node_id_is_matched_whole_in_part_or_by_an_expression() {
        let regex =
            |regex: &str| StringPattern::SafeRegex(RegexMatcher { regex: regex.into(), ..RegexMatcher::default() });
        assert!(is_meant(&[]));
        assert!(is_meant(&[id(StringPattern::Exact("edge-1".into()))]));
        assert!(!is_meant(&[id(StringPattern::Exact("edge".into()))]));
        assert!(is_meant(&[id(StringPattern::Prefix("edge".into()))]));
        assert!(is_meant(&[id(StringPattern::Suffix("-1".into()))]));
        assert!(is_meant(&[id(StringPattern::Contains("ge-".into()))]));
        assert!(is_meant(&[id(regex("edge-[0-9]+"))]));
        assert!(!is_meant(&[id(regex("edge"))]), "an expression speaks of the whole text");
        let folded = StringMatcher { ignore_case: true, match_pattern: Some(StringPattern::Exact("EDGE-1".into())) };
        assert!(is_meant(&[NodeMatcher { node_id: Some(folded), node_metadatas: Vec::new() }]));
    }

    #[test]
    fn metadata_is_matched_by_path_and_one_of_several_matchers_is_enough() {
        let is = |value: &str| ValuePattern::StringMatch(text(StringPattern::Exact(value.into())));
        assert!(is_meant(&[metadata(&["NAMESPACE"], is("shop"))]));
        assert!(is_meant(&[metadata(&["LABELS", "app"], is("api")), metadata(&["LABELS", "app"], is("web"))]));
        assert!(is_meant(&[metadata(&["LABELS", "team"], ValuePattern::PresentMatch(false))]));
        assert!(!is_meant(&[metadata(&["LABELS", "team"], is(""))]));
        let mut both = metadata(&["NAME"], is("edge"));
        both.node_id = Some(text(StringPattern::Exact("other".into())));
        assert!(!is_meant(&[both]), "all parts of one matcher must hold");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let refused = |matcher: NodeMatcher| Matchers::new(&[matcher]).unwrap_err().to_string();
        let regex = StringPattern::SafeRegex(RegexMatcher { regex: "(".into(), ..RegexMatcher::default() });
        assert!(refused(id(regex)).starts_with("safe_regex.regex \"(\": "));
        for regex in ["e)|(?:zz", "edge)|(?:edge-1"] {
            let alone = StringPattern::SafeRegex(RegexMatcher { regex: regex.into(), ..RegexMatcher::default() });
            assert!(refused(id(alone)).starts_with("safe_regex.regex"), "{regex} is no expression by itself");
        }
        for path in [&["LABELS"][..], &["CLUSTER_ID"], &["LABELS", "app", "x"], &["NAME", "x"], &[]] {
            let refused = refused(metadata(path, ValuePattern::PresentMatch(false)));
            assert!(refused.starts_with(&format!("node_metadatas.path {path:?}: only NAMESPACE")), "{refused}");
        }
        assert!(refused(metadata(&["NAME"], ValuePattern::BoolMatch(true))).contains("is not offered"));
        let empty = NodeMatcher { node_id: Some(StringMatcher::default()), node_metadatas: Vec::new() };
        assert_eq!(refused(empty), "string match: a pattern is missing");
    }
}
