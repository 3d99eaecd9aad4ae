//! Reads of a `DeltaDiscoveryResponse` what a client needs, without copying what it carries.

use std::collections::BTreeSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpConfigType;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};

/// A response, borrowed from its bytes.
#[derive(Debug, Default)]
pub struct Response<'a> {
    pub type_url: &'a str,
    pub nonce: &'a str,
    pub resources: Vec<Received<'a>>,
}

/// One resource of a response.
#[derive(Debug, Default)]
pub struct Received<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// The `google.protobuf.Any`.
    any: &'a [u8],
}

impl<'a> Response<'a> {
    pub fn read(message: &'a [u8]) -> Self {
        let mut response = Self::default();
        each_field(message, |tag, value| match tag {
            2 => response.resources.push(Received::read(value)),
            4 => response.type_url = text(value),
            5 => response.nonce = text(value),
            _ => {}
        });
        response
    }
}

impl<'a> Received<'a> {
    fn read(message: &'a [u8]) -> Self {
        let mut received = Self::default();
        each_field(message, |tag, value| match tag {
            1 => received.version = text(value),
            2 => received.any = value,
            3 => received.name = text(value),
            _ => {}
        });
        received
    }

    /// The ECDS names of a listener.
    pub fn extension_names(&self) -> BTreeSet<String> {
        let listener = Listener::decode(any_value(self.any)).unwrap_or_default();
        let filters = listener.filter_chains.into_iter().chain(listener.default_filter_chain).flat_map(|it| it.filters);
        let mut names = BTreeSet::new();
        for filter in filters {
            let Some(ConfigType::TypedConfig(any)) = filter.config_type else { continue };
            let Ok(manager) = HttpConnectionManager::decode(&any.value[..]) else { continue };
            let discovered = manager
                .http_filters
                .into_iter()
                .filter(|filter| matches!(filter.config_type, Some(HttpConfigType::ConfigDiscovery(_))));
            names.extend(discovered.map(|filter| filter.name));
        }
        names
    }
}

/// A gRPC frame of one message.
pub fn frame(message: &impl prost::Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("requests are small"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

fn any_value(any: &[u8]) -> &[u8] {
    let mut found: &[u8] = &[];
    each_field(any, |tag, value| {
        if tag == 2 {
            found = value;
        }
    });
    found
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// Visits the length-delimited fields, and nothing after the first field of another wire type: there is none.
fn each_field<'a>(mut message: &'a [u8], mut visit: impl FnMut(u32, &'a [u8])) {
    while !message.is_empty() {
        let Ok((tag, WireType::LengthDelimited)) = decode_key(&mut message) else { return };
        let length = decode_varint(&mut message).ok().and_then(|length| usize::try_from(length).ok());
        let Some((value, rest)) = length.and_then(|length| message.split_at_checked(length)) else { return };
        visit(tag, value);
        message = rest;
    }
}
