//! What of an Envoy listener decides which plugins go where.
//!
//! Comes in: a Listener message. Goes out: its [`Shape`]: direction, port, and each chain with what it can carry.

use envoy_types::pb::envoy::config::core::v3::{TrafficDirection, address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};

use super::type_urls::{HTTP_CONNECTION_MANAGER, QUIC_TRANSPORT, is_same};
use crate::model::{Direction, ListenerProtocol};

/// A listener as plugins see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub name: String,
    pub direction: Direction,
    /// 0 where the address has no port.
    pub port: u16,
    pub chains: Vec<ChainShape>,
}

impl Shape {
    pub fn of(listener: &Listener) -> Self {
        let is_quic = is_quic_listener(listener);
        let mut chains: Vec<_> = listener
            .filter_chains
            .iter()
            .enumerate()
            .map(|(index, chain)| chain_shape(chain, &format!("filter_chains[{index}]"), is_quic))
            .collect();
        chains.extend(
            listener.default_filter_chain.iter().map(|chain| chain_shape(chain, "default_filter_chain", is_quic)),
        );
        Self { name: listener.name.clone(), direction: direction(listener), port: port(listener), chains }
    }

    /// HTTP where some chain is.
    pub fn protocol(&self) -> ListenerProtocol {
        match self.chains.iter().any(|chain| chain.is_http) {
            true => ListenerProtocol::Http,
            false => ListenerProtocol::Tcp,
        }
    }
}

/// A filter chain as plugins see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainShape {
    /// Its own name, or else where it stands in the listener.
    pub name: String,
    /// Has an HTTP connection manager: carries HTTP plugins.
    pub is_http: bool,
    /// Is not QUIC: carries NETWORK plugins.
    pub is_network: bool,
}

fn chain_shape(chain: &FilterChain, path: &str, is_quic_listener: bool) -> ChainShape {
    let name = match chain.name.is_empty() {
        true => path.to_owned(),
        false => chain.name.clone(),
    };
    let is_http = chain.filters.iter().any(|filter| manager(filter).is_some());
    ChainShape { name, is_http, is_network: !is_quic_listener && !is_quic(chain) }
}

/// The encoded HttpConnectionManager, if the filter is one.
pub fn manager(filter: &Filter) -> Option<&[u8]> {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) if is_same(&any.type_url, HTTP_CONNECTION_MANAGER) => {
            Some(&any.value)
        }
        _ => None,
    }
}

/// Whether all chains are QUIC.
pub fn is_quic_listener(listener: &Listener) -> bool {
    listener.udp_listener_config.as_ref().is_some_and(|udp| udp.quic_options.is_some())
}

/// Network filters do not exist on a QUIC chain.
pub fn is_quic(chain: &FilterChain) -> bool {
    use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
    chain.transport_socket.as_ref().is_some_and(|socket| match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => is_same(&any.type_url, QUIC_TRANSPORT),
        None => false,
    })
}

fn direction(listener: &Listener) -> Direction {
    match listener.traffic_direction() {
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
        TrafficDirection::Unspecified => Direction::Gateway,
    }
}

fn port(listener: &Listener) -> u16 {
    socket(listener).map_or(0, |(_, _, port)| port)
}

/// Protocol, address and port that the listener binds first.
pub fn socket(listener: &Listener) -> Option<(i32, &str, u16)> {
    let Some(address::Address::SocketAddress(socket)) = listener.address.as_ref()?.address.as_ref() else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).unwrap_or(0),
        _ => 0,
    };
    Some((socket.protocol, &socket.address, port))
}
