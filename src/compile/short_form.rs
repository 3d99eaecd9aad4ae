//! A listener in the short form, as Envoy's Listener and Cluster, without any plugin.
//!
//! Invariant: the bytes for one specification never change by accident: a change drains whole fleets
//! (`tests/it/listener_bytes.rs` holds them).

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Address, SocketAddress, TrafficDirection, address::Address as AddressKind, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action, route_action,
    route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3::Config as DirectResponse;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use super::names;
use crate::model::{Direction, ForwardTo, Host, ListenerProtocol, ListenerSpec};

/// The listener, with one filter chain of its own name.
pub fn listener(spec: &ListenerSpec) -> Listener {
    let filter = match (spec.protocol, &spec.forward_to) {
        (ListenerProtocol::Http, _) => network_filter("envoy.filters.network.http_connection_manager", &http(spec)),
        (ListenerProtocol::Tcp, Some(_)) => network_filter("envoy.filters.network.tcp_proxy", &tcp(spec)),
        (ListenerProtocol::Tcp, None) => {
            // Answers nothing and closes.
            network_filter("envoy.filters.network.direct_response", &DirectResponse::default())
        }
    };
    let direction = match spec.direction {
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
        Direction::Gateway => TrafficDirection::Unspecified,
    };
    Listener {
        name: spec.name.clone(),
        address: Some(socket(spec.bind.to_string(), spec.port)),
        filter_chains: vec![FilterChain { name: spec.name.clone(), filters: vec![filter], ..Default::default() }],
        traffic_direction: direction.into(),
        ..Default::default()
    }
}

/// The cluster that the listener forwards to, if it does.
pub fn cluster(spec: &ListenerSpec) -> Option<Cluster> {
    let forward_to = spec.forward_to.as_ref()?;
    Some(cluster_of(names::cluster(&spec.name), forward_to))
}

/// A cluster of one upstream.
pub fn cluster_of(name: String, ForwardTo { host, port }: &ForwardTo) -> Cluster {
    let (discovery, address) = match host {
        Host::Address(address) => (cluster::DiscoveryType::Static, address.to_string()),
        Host::Name(name) => (cluster::DiscoveryType::StrictDns, name.clone()),
    };
    let endpoint = Endpoint { address: Some(socket(address, *port)), ..Default::default() };
    let endpoint = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(discovery.into())),
        connect_timeout: Some(duration(Duration::from_secs(5))),
        // Else `localhost` is ::1 alone, where many upstreams do not listen.
        dns_lookup_family: cluster::DnsLookupFamily::V4Preferred.into(),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name,
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn http(spec: &ListenerSpec) -> HttpConnectionManager {
    let routes = RouteConfiguration {
        name: spec.name.clone(),
        // No virtual host: 404 for everything.
        virtual_hosts: spec.forward_to.iter().map(|_| everything_to(names::cluster(&spec.name))).collect(),
        ..Default::default()
    };
    let router = HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..Default::default()
    };
    let websocket = http_connection_manager::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() };
    HttpConnectionManager {
        stat_prefix: spec.name.clone(),
        http_filters: vec![router],
        upgrade_configs: vec![websocket],
        route_specifier: Some(http_connection_manager::RouteSpecifier::RouteConfig(routes)),
        ..Default::default()
    }
}

fn everything_to(cluster: String) -> VirtualHost {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster)),
        timeout: Some(duration(Duration::ZERO)),
        ..Default::default()
    };
    let route = Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
        action: Some(Action::Route(action)),
        ..Default::default()
    };
    VirtualHost { name: "all".into(), domains: vec!["*".into()], routes: vec![route], ..Default::default() }
}

fn tcp(spec: &ListenerSpec) -> TcpProxy {
    TcpProxy {
        stat_prefix: spec.name.clone(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(names::cluster(&spec.name))),
        ..Default::default()
    }
}

fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn socket(address: String, port: u16) -> Address {
    let port_specifier = Some(PortSpecifier::PortValue(port.into()));
    let address = SocketAddress { address, port_specifier, ..Default::default() };
    Address { address: Some(AddressKind::SocketAddress(address)) }
}

fn duration(duration: Duration) -> envoy_types::pb::google::protobuf::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    envoy_types::pb::google::protobuf::Duration { seconds, nanos: 0 }
}
