//! Responses as gRPC frames: a few bytes of this stream's own, and the shared bytes of the resources.

use bytes::{BufMut, Bytes, BytesMut};

use super::session::{Protocol, Response};
use crate::snapshot::Rope;

/// The frames of one gRPC message, in order. Resources are encoded once, whoever is sent them.
pub fn frames(protocol: Protocol, response: &Response) -> Vec<Bytes> {
    let message = match protocol {
        Protocol::Sotw => sotw(response),
        Protocol::Delta => delta(response),
    };
    let mut framed = Rope::new();
    let mut header = BytesMut::with_capacity(5);
    header.put_u8(0);
    // A message of 4 GiB would need modules of that size; their limit is far below.
    header.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.push(header.freeze());
    framed.append(&message);
    framed.segments().to_vec()
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
fn sotw(response: &Response) -> Rope {
    let mut message = Rope::new();
    if let Some(version_info) = &response.version_info {
        message.string(1, version_info.as_str());
    }
    message.string(4, response.resource_type.type_url());
    message.string(5, &response.nonce.to_string());
    for resource in &response.resources {
        message.append(resource.sotw_field());
    }
    message
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
fn delta(response: &Response) -> Rope {
    let mut message = Rope::new();
    if let [resource] = &response.resources[..] {
        // For people: Envoy shows it as `version_text`.
        message.string(1, resource.version.as_str());
    }
    message.string(4, response.resource_type.type_url());
    message.string(5, &response.nonce.to_string());
    for name in &response.removed {
        message.string(6, name);
    }
    for resource in &response.resources {
        message.append(resource.delta_field());
    }
    message
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message as _;

    use super::*;
    use crate::snapshot::{Resource, ResourceType, Version};

    fn response() -> Response {
        let mut body = Rope::new();
        body.bytes(1, vec![b'x'; 4000].into());
        let resource = Resource::new(ResourceType::Cluster, "c", Version::of_text("1"), body);
        Response {
            resource_type: ResourceType::Cluster,
            nonce: 7,
            version_info: Some(Version::of_text("set")),
            resources: vec![Arc::new(resource)],
            removed: vec!["gone".into()],
            sent_at: Instant::now(),
            counts_refused: false,
        }
    }

    fn message(protocol: Protocol, response: &Response) -> Vec<u8> {
        let bytes = frames(protocol, response).concat();
        assert_eq!(bytes[..5], [&[0][..], &u32::try_from(bytes.len() - 5).unwrap().to_be_bytes()].concat());
        bytes[5..].to_vec()
    }

    #[test]
    fn the_frames_of_a_response_are_the_message_of_the_protocol() {
        let response = response();
        let delta = DeltaDiscoveryResponse::decode(&message(Protocol::Delta, &response)[..]).unwrap();
        assert_eq!((delta.nonce.as_str(), delta.removed_resources), ("7", vec!["gone".to_owned()]));
        assert_eq!(delta.resources[0].name, "c");
        let sotw = DiscoveryResponse::decode(&message(Protocol::Sotw, &response)[..]).unwrap();
        assert_eq!(sotw.version_info, Version::of_text("set").as_str());
        assert_eq!(sotw.resources.len(), 1);
    }

    #[test]
    fn the_bytes_of_a_resource_are_shared_and_not_copied() {
        let response = response();
        let shared = |bytes: &Bytes| bytes.len() >= 4000;
        let first = frames(Protocol::Delta, &response).into_iter().find(shared).unwrap();
        let second = frames(Protocol::Delta, &response).into_iter().find(shared).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
    }
}
