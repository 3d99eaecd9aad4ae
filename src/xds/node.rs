//! The xDS node, turned into a [`Proxy`] once, at the door.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use crate::model::{Capabilities, EnvoyVersion, Proxy};

/// Who is asking. Namespace, labels and name come from Istio's metadata keys, else from an Istio-style id
/// (`sidecar~IP~name.namespace~domain`), else they are `default`, none and empty.
///
/// `None` for a node without id: nobody could be told about it.
pub fn proxy_of(node: &Node) -> Option<Proxy> {
    if node.id.is_empty() {
        return None;
    }
    let said = |key| node.metadata.as_ref().and_then(|metadata| text(metadata, key));
    let (name, namespace) = workload_of_id(&node.id).unzip();
    Some(Proxy {
        node_id: node.id.clone(),
        name: said("NAME").or(name).unwrap_or_default().to_owned(),
        cluster: node.cluster.clone(),
        namespace: said("NAMESPACE").or(namespace).unwrap_or("default").to_owned(),
        labels: node.metadata.as_ref().map(labels).unwrap_or_default(),
        version: version(node),
        capabilities: capabilities(node),
    })
}

fn text<'a>(metadata: &'a Struct, key: &str) -> Option<&'a str> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn labels(metadata: &Struct) -> BTreeMap<String, String> {
    let Some(Value { kind: Some(Kind::StructValue(labels)) }) = metadata.fields.get("LABELS") else {
        return BTreeMap::new();
    };
    let string = |value: &Value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    labels.fields.iter().filter_map(|(key, value)| Some((key.clone(), string(value)?))).collect()
}

/// Name and namespace.
fn workload_of_id(id: &str) -> Option<(&str, &str)> {
    let parts: Vec<_> = id.split('~').collect();
    let [_, _, workload, _] = parts[..] else { return None };
    workload.rsplit_once('.').filter(|(_, namespace)| !namespace.is_empty())
}

fn version(node: &Node) -> Option<EnvoyVersion> {
    match node.user_agent_version_type.as_ref()? {
        UserAgentVersionType::UserAgentBuildVersion(build) => {
            let version = build.version.as_ref()?;
            Some(EnvoyVersion::new(version.major_number, version.minor_number, version.patch))
        }
        UserAgentVersionType::UserAgentVersion(text) => {
            let mut numbers = text.split(['.', '-']).map_while(|part| part.parse().ok());
            Some(EnvoyVersion::new(numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
        }
    }
}

/// Two independent facts; no extensions at all means that nothing is known.
fn capabilities(node: &Node) -> Capabilities {
    if node.extensions.is_empty() {
        return Capabilities::default();
    }
    let lists = |name: &str| node.extensions.iter().any(|extension| extension.name == name && !extension.disabled);
    Capabilities { chain: lists("envoy.filters.http.filter_chain"), wasm: lists("envoy.wasm.runtime.v8") }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Extension;

    use super::*;

    fn string(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.into())) }
    }

    fn node(id: &str) -> Node {
        Node { id: id.into(), ..Default::default() }
    }

    #[test]
    fn metadata_says_namespace_labels_and_name() {
        let labels = Struct { fields: [("app".into(), string("web"))].into() };
        let labels = Value { kind: Some(Kind::StructValue(labels)) };
        let fields =
            [("NAMESPACE".into(), string("shop")), ("LABELS".into(), labels), ("NAME".into(), string("web-1"))];
        let metadata = Struct { fields: fields.into() };
        let proxy = proxy_of(&Node { metadata: Some(metadata), ..node("sidecar~10.0.0.1~web.other~x") }).unwrap();
        assert_eq!((proxy.namespace.as_str(), proxy.name.as_str()), ("shop", "web-1"));
        assert_eq!(proxy.labels, BTreeMap::from([("app".into(), "web".into())]));
    }

    #[test]
    fn an_istio_style_id_says_name_and_namespace_and_nothing_says_default() {
        let of = |id: &str| proxy_of(&node(id)).map(|proxy| (proxy.name, proxy.namespace)).unwrap();
        assert_eq!(of("sidecar~10.0.0.1~web-1.shop~shop.svc"), ("web-1".to_owned(), "shop".to_owned()));
        assert_eq!(of("envoy"), (String::new(), "default".to_owned()));
        assert_eq!(proxy_of(&node("")), None);
    }

    #[test]
    fn extensions_say_what_an_envoy_can_do() {
        let with = |names: &[&str]| Node {
            extensions: names.iter().map(|name| Extension { name: name.to_string(), ..Default::default() }).collect(),
            ..node("e")
        };
        let capabilities = |names: &[&str]| proxy_of(&with(names)).unwrap().capabilities;
        assert_eq!(capabilities(&[]), Capabilities { chain: false, wasm: true });
        assert_eq!(capabilities(&["envoy.filters.http.rbac"]), Capabilities { chain: false, wasm: false });
        assert_eq!(
            capabilities(&["envoy.filters.http.filter_chain", "envoy.wasm.runtime.v8"]),
            Capabilities { chain: true, wasm: true }
        );
    }
}
