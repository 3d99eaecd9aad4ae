//! Envoy's messages by reflection over Envoy's own descriptors.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::{check, refusal};

/// All messages that the Envoy API knows, and the two TypedStructs. Decoding takes some 30 ms, once.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/envoy.fds"))[..])
        .expect("the build wrote a valid descriptor set")
});

/// What is wrong with a message, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Such as `filter_chains[0].filters[0].typed_config.http_filters`; empty for the message itself.
    pub path: String,
    /// In words, with what would be right where that is known.
    pub reason: String,
}

/// The JSON is no such message. Never retried: the writer has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", violation.path, violation.reason)]
pub struct InvalidMessage {
    pub violation: Violation,
}

/// Encodes `json`, written in protobuf's JSON mapping (both `camelCase` and `snake_case`), as the message
/// `full_name`, e.g. `envoy.config.listener.v3.Listener`. Unknown fields are refused, at any depth, inside an `Any` too.
pub fn from_json(full_name: &str, json: &Value) -> Result<Bytes, InvalidMessage> {
    let descriptor = descriptor(full_name);
    match DynamicMessage::deserialize_with_options(descriptor.clone(), json.clone(), &DeserializeOptions::new()) {
        Ok(message) => Ok(message.encode_to_vec().into()),
        Err(error) => {
            let whole = || Violation { path: String::new(), reason: error.to_string() };
            let violation = check::violations(&descriptor, json).into_iter().next().unwrap_or_else(whole);
            Err(InvalidMessage { violation })
        }
    }
}

/// Everything for which [`from_json`] refuses `json`, not only the first; empty where it does not.
pub fn violations(full_name: &str, json: &Value) -> Vec<Violation> {
    check::violations(&descriptor(full_name), json)
}

/// What an Envoy would refuse `json` for, by its own field rules; empty where it is no such message at all.
pub fn refusals(full_name: &str, json: &Value) -> Vec<Violation> {
    let options = DeserializeOptions::new();
    DynamicMessage::deserialize_with_options(descriptor(full_name), json.clone(), &options)
        .map(|message| refusal::refusals(&message, json))
        .unwrap_or_default()
}

/// The message `full_name` as JSON, `snake_case`, with every `Any` of a known type opened. A message that does not
/// decode is shown as `null`.
pub fn to_json(full_name: &str, message: &[u8]) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    DynamicMessage::decode(descriptor(full_name), message)
        .ok()
        .and_then(|message| message.serialize_with_options(serde_json::value::Serializer, &options).ok())
        .unwrap_or(Value::Null)
}

pub(super) fn descriptor(full_name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(full_name).expect("callers name messages of the Envoy API")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LISTENER: &str = "envoy.config.listener.v3.Listener";

    #[test]
    fn json_survives_the_way_into_a_message_and_back() {
        let json = json!({
            "name": "l",
            "filter_chains": [{"filters": [{"name": "echo", "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
                "value": {"a": [1.0, "b", null]}}}]}]
        });
        let message = from_json(LISTENER, &json).unwrap();
        assert_eq!(to_json(LISTENER, &message), json);
    }

    #[test]
    fn an_unknown_field_inside_an_any_is_refused_by_its_path() {
        let json = json!({"filter_chains": [{"filters": [{"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefx": "x"}}]}]});
        let error = from_json(LISTENER, &json).unwrap_err();
        assert_eq!(error.violation.path, "filter_chains[0].filters[0].typed_config.stat_prefx");
        assert!(error.violation.reason.ends_with("did you mean \"stat_prefix\"?"), "{error}");
    }

    /// A connection manager with these HTTP filters, in a listener.
    fn listener_with(http_filters: Value) -> Value {
        json!({"name": "l", "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "x", "http_filters": http_filters}}]}]})
    }

    fn paths(json: &Value) -> Vec<String> {
        let prefix = "filter_chains[0].filters[0].typed_config.";
        violations(LISTENER, json).into_iter().map(|found| found.path.replace(prefix, "…")).collect()
    }

    #[test]
    fn every_violation_inside_nested_anys_has_its_own_path() {
        let filter = |type_name: &str, field: &str, value: Value| json!({"name": "f", "typed_config": {"@type": format!("type.googleapis.com/{type_name}"), field: value}});
        let router = "envoy.extensions.filters.http.router.v3.Router";
        let json = listener_with(json!([
            filter(router, "dynamic_stats", json!("maybe")),
            filter(router, "upstream_http_filters", json!([{"name": "x", "typed_config": {"a": 1}}])),
            filter("envoy.extensions.filters.http.router.v3.Ruter", "x", json!(1)),
            filter("envoy.extensions.filters.http.rbac.v3.RBAC", "rules", json!({"action": "DENNY"})),
            filter("envoy.extensions.filters.http.fault.v3.HTTPFault", "delay", json!({"fixed_delay": "5 s"})),
            filter("google.protobuf.StringValue", "value", json!(5)),
        ]));
        assert_eq!(
            paths(&json),
            [
                "…http_filters[0].typed_config.dynamic_stats",
                "…http_filters[1].typed_config.upstream_http_filters[0].typed_config.@type",
                "…http_filters[2].typed_config.@type",
                "…http_filters[3].typed_config.rules.action",
                "…http_filters[4].typed_config.delay.fixed_delay",
                "…http_filters[5].typed_config.value",
            ]
        );
        let error = from_json(LISTENER, &json).unwrap_err();
        assert_eq!(
            error.violation.path,
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.dynamic_stats"
        );
    }

    #[test]
    fn two_fields_of_one_oneof_are_refused_at_their_message() {
        let json = json!({"address": {"socket_address": {"address": "::1", "port_value": 1}, "pipe": {"path": "/x"}}});
        assert_eq!(violations(LISTENER, &json).len(), 1);
        assert_eq!(violations(LISTENER, &json)[0].path, "address");
    }

    /// Paths and reasons.
    fn told(full_name: &str, json: &Value) -> Vec<String> {
        refusals(full_name, json).into_iter().map(|found| format!("{}: {}", found.path, found.reason)).collect()
    }

    #[test]
    fn a_text_that_does_not_match_the_pattern_of_a_rule_is_refused() {
        const FILES: &str = "envoy.extensions.filters.http.file_server.v3.FileServerConfig";
        let config = |name: &str| json!({"manager_config": {}, "directory_behaviors": [{"default_file": name}]});
        let of = |name: &str| told(FILES, &config(name)).into_iter().filter(|it| it.contains("default_file"));
        assert_eq!(of("index.html").count(), 0);
        assert_eq!(
            of("a/index.html").collect::<Vec<_>>(),
            ["directory_behaviors[0].default_file: must match ^[^/]*$, unlike \"a/index.html\""]
        );
    }

    #[test]
    fn what_envoys_own_rules_refuse_is_told_by_the_paths_that_the_file_has() {
        let json = json!({
            "address": {"socketAddress": {"address": "", "portValue": 70000}},
            "filter_chains": [{"filters": [{"name": "", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "max_request_headers_kb": 9000, "codec_type": 9,
                "route_config": {"virtual_hosts": [{"name": "x", "domains": [], "routes": [
                    {"route": {"cluster": ""}},
                    {"match": {"path_separated_prefix": "/a/"}, "redirect": {}, "request_headers_to_remove": ["a\nb"]},
                    {"match": {}, "direct_response": {"status": 99}}
                ]}]}}}]}],
            "listener_filters_timeout": "-1s"
        });
        let (chain, hosts) = ("filter_chains[0].filters[0]", "route_config.virtual_hosts[0]");
        assert_eq!(
            told(LISTENER, &json),
            [
                "address.socketAddress.address: must not be empty".to_owned(),
                "address.socketAddress.portValue: 70000 is out of range, allowed is <= 65535".to_owned(),
                format!("{chain}.name: must not be empty"),
                format!("{chain}.typed_config.codec_type: 9 is no value of CodecType"),
                format!("{chain}.typed_config.stat_prefix: must not be empty"),
                format!("{chain}.typed_config.{hosts}.domains: must not be empty: at least 1 item is required"),
                format!("{chain}.typed_config.{hosts}.routes[0].match: is required"),
                format!("{chain}.typed_config.{hosts}.routes[0].route.cluster: must not be empty"),
                format!(
                    "{chain}.typed_config.{hosts}.routes[1].match.path_separated_prefix: must be a path that does not end with \"/\", without \"?\" and \"#\", unlike \"/a/\""
                ),
                format!(
                    "{chain}.typed_config.{hosts}.routes[1].request_headers_to_remove[0]: must be the name of a header, not \"a\\nb\""
                ),
                format!(
                    "{chain}.typed_config.{hosts}.routes[2].match: path_specifier is required: one of prefix, path, safe_regex, connect_matcher, path_separated_prefix, path_match_policy"
                ),
                format!(
                    "{chain}.typed_config.{hosts}.routes[2].direct_response.status: 99 is out of range, allowed is >= 200 and < 600"
                ),
                format!(
                    "{chain}.typed_config.max_request_headers_kb: 9000 is out of range, allowed is > 0 and <= 8192"
                ),
            ]
        );
    }

    #[test]
    fn what_is_right_has_no_violations() {
        let json = listener_with(json!([{"name": "router", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "dynamicStats": true, "suppress_envoy_headers": null}}]));
        assert!(from_json(LISTENER, &json).is_ok());
        assert_eq!(violations(LISTENER, &json), []);
    }
}
