//! Envoy's messages by reflection over Envoy's own descriptors.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

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
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(json.clone(), &mut track);
    match DynamicMessage::deserialize_with_options(descriptor(full_name), deserializer, &DeserializeOptions::new()) {
        Ok(message) => Ok(message.encode_to_vec().into()),
        Err(error) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            Err(InvalidMessage { violation: Violation { path, reason: error.to_string() } })
        }
    }
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

fn descriptor(full_name: &str) -> MessageDescriptor {
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
        assert!(error.violation.path.starts_with("filter_chains[0].filters[0].typed_config"), "{error}");
        assert!(error.violation.reason.contains("stat_prefx"), "{error}");
    }
}
