//! What of a template's listeners decides whether a plugin finds its place, and which of them stand in each other's way.

use std::fmt;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{SocketAddress, TrafficDirection, address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use prost::Message as _;

use crate::model::{Direction, ListenerProtocol, ListenerSpec, NativeKind, ProxyTemplate};

/// A listener in either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources) struct Shape {
    pub name: String,
    /// Where it stands in the resource.
    pub path: String,
    pub direction: Direction,
    /// 0 where there is none.
    pub port: u16,
    pub is_http: bool,
    pub has_chains: bool,
    pub socket: Option<Socket>,
}

/// What only one listener of a proxy may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sources) struct Socket {
    protocol: i32,
    address: String,
    namespace: String,
    port: u16,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.contains(':') {
            true => write!(f, "[{}]:{}", self.address, self.port),
            false => write!(f, "{}:{}", self.address, self.port),
        }
    }
}

/// All listeners of `template`, the short form first.
pub(in crate::sources) fn listeners(template: &ProxyTemplate) -> Vec<Shape> {
    let short = template.listeners.iter().enumerate().map(|(index, spec)| short(index, spec));
    let native = template.native.iter().filter(|resource| resource.kind == NativeKind::Listener).enumerate();
    let native = native.filter_map(|(index, resource)| {
        let listener = Listener::decode(resource.message.clone()).ok()?;
        Some(native_shape(format!("spec.envoy.listeners[{index}]"), &listener))
    });
    short.chain(native).collect()
}

fn short(index: usize, spec: &ListenerSpec) -> Shape {
    let address = spec.bind.to_string();
    Shape {
        name: spec.name.clone(),
        path: format!("spec.listeners[{index}]"),
        direction: spec.direction,
        port: spec.port,
        is_http: spec.protocol == ListenerProtocol::Http,
        has_chains: true,
        socket: Some(Socket { protocol: 0, address, namespace: String::new(), port: spec.port }),
    }
}

fn native_shape(path: String, listener: &Listener) -> Shape {
    let mut chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let is_manager = |filter: &filter::ConfigType| match filter {
        filter::ConfigType::TypedConfig(any) => any.type_url.ends_with(".HttpConnectionManager"),
        // Whatever it may turn out to be.
        filter::ConfigType::ConfigDiscovery(_) => true,
    };
    let is_http = chains.any(|chain| chain.filters.iter().filter_map(|it| it.config_type.as_ref()).any(is_manager));
    let socket = listener.address.as_ref().and_then(|address| match &address.address {
        Some(address::Address::SocketAddress(socket)) => of_socket(socket),
        _ => None,
    });
    Shape {
        name: listener.name.clone(),
        path,
        direction: match listener.traffic_direction() {
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
            TrafficDirection::Unspecified => Direction::Gateway,
        },
        port: socket.as_ref().map_or(0, |socket| socket.port),
        is_http,
        has_chains: !listener.filter_chains.is_empty() || listener.default_filter_chain.is_some(),
        socket,
    }
}

/// `None` for port 0, which is a free one each time.
fn of_socket(socket: &SocketAddress) -> Option<Socket> {
    let port = match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok().filter(|port| *port != 0)?,
        _ => return None,
    };
    let address = socket.address.parse::<IpAddr>().map_or_else(|_| socket.address.clone(), |ip| ip.to_string());
    let namespace = socket.network_namespace_filepath.clone();
    Some(Socket { protocol: socket.protocol, address, namespace, port })
}
