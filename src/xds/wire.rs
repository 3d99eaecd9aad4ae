//! Responses as gRPC frames: a few bytes of this stream's own, and the shared bytes of the resources.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::session::{Protocol, Response};
use crate::snapshot::Rope;

/// Pieces up to this size are copied behind what is already there: a frame of their own would cost a write.
const COPIED_UP_TO: usize = 1024;
/// The gRPC header: not compressed, and the length of the message.
const HEADER: usize = 5;

/// The frames of one gRPC message, in order. Resources are encoded once, whoever is sent them.
pub fn frames(protocol: Protocol, response: &Response) -> Vec<Bytes> {
    let fields = response.resources.iter().map(|resource| match protocol {
        Protocol::Sotw => resource.sotw_field(),
        Protocol::Delta => resource.delta_field(),
    });
    let shared: usize = fields.clone().map(Rope::len).sum();
    let mut own = BytesMut::with_capacity(COPIED_UP_TO.min(HEADER + 256 + shared));
    own.put_bytes(0, HEADER);
    match protocol {
        Protocol::Sotw => sotw(response, &mut own),
        Protocol::Delta => delta(response, &mut own),
    }
    // A message of 4 GiB would need modules of that size; their limit is far below.
    let length = u32::try_from(own.len() - HEADER + shared).unwrap_or(u32::MAX);
    own[1..HEADER].copy_from_slice(&length.to_be_bytes());
    let mut frames = Vec::with_capacity(1);
    for segment in fields.flat_map(Rope::segments) {
        if own.len() + segment.len() <= COPIED_UP_TO {
            own.put_slice(segment);
            continue;
        }
        if !own.is_empty() {
            frames.push(own.split().freeze());
        }
        frames.push(segment.clone());
    }
    if !own.is_empty() {
        frames.push(own.freeze());
    }
    frames
}

/// `envoy.service.discovery.v3.DiscoveryResponse`, but for its resources.
fn sotw(response: &Response, message: &mut BytesMut) {
    if let Some(version_info) = &response.version_info {
        string(1, version_info.as_str(), message);
    }
    string(4, response.resource_type.type_url(), message);
    string(5, &response.nonce.to_string(), message);
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`, but for its resources.
fn delta(response: &Response, message: &mut BytesMut) {
    if let [resource] = &response.resources[..] {
        // For people: Envoy shows it as `version_text`.
        string(1, resource.version.as_str(), message);
    }
    string(4, response.resource_type.type_url(), message);
    string(5, &response.nonce.to_string(), message);
    for name in &response.removed {
        string(6, name, message);
    }
}

/// A string field; an empty string is the default and is left out.
fn string(tag: u32, value: &str, message: &mut BytesMut) {
    if !value.is_empty() {
        encode_key(tag, WireType::LengthDelimited, message);
        encode_varint(value.len() as u64, message);
        message.put_slice(value.as_bytes());
    }
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
