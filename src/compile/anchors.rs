//! The fixed points of a filter chain that the user wrote, and the gaps between them where plugins go.
//!
//! Comes in: the filters of one chain, as types. Goes out: [`Gap`]s, each with the place where its run of plugins
//! stands: directly before the anchor that closes it.

use envoy_types::pb::envoy::config::core::v3::ExtensionConfigSource;
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::type_urls::{HTTP_CONNECTION_MANAGER, message_name};
use crate::model::Position;

/// What a filter is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Authentication,
    Authorization,
    Stats,
    Router,
    Other,
}

/// The room between two neighbouring anchors: all positions from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: Position,
    pub last: Position,
    /// Index of the filter that closes the gap.
    pub at: usize,
}

impl Gap {
    pub fn holds(&self, position: Position) -> bool {
        (self.first..=self.last).contains(&position)
    }
}

/// The gaps of an HTTP filter chain, first to last.
pub fn http_gaps(filters: &[HttpFilter]) -> Vec<Gap> {
    let roles: Vec<_> = filters.iter().map(http_role).collect();
    let end = roles.iter().rposition(|role| *role == Role::Router).unwrap_or(roles.len().saturating_sub(1));
    let before_end = &roles[..end];
    let last = |role: Role| before_end.iter().rposition(|it| *it == role);
    let after = |index: Option<usize>| index.map_or(0, |index| index + 1);
    let authentication = before_end.iter().position(|role| *role == Role::Authentication);
    // An ext_authz or rbac in front of the authentication is no anchor.
    let from = after(last(Role::Authentication));
    let authorization = first(Role::Authorization, before_end, from);
    let from = from.max(after(authorization.and(last(Role::Authorization))));
    let stats = first(Role::Stats, before_end, from);
    slide([authentication, authorization, stats, Some(end)])
}

/// The gaps of a network filter chain, first to last: authorization, and the last filter.
pub fn network_gaps(filters: &[Filter]) -> Vec<Gap> {
    let roles: Vec<_> = filters.iter().map(network_role).collect();
    let end = roles.len().saturating_sub(1);
    slide([None, first(Role::Authorization, &roles[..end], 0), None, Some(end)])
}

/// Whether the chain ends as Envoy wants it: with a router.
pub fn has_router(filters: &[HttpFilter]) -> bool {
    filters.last().is_some_and(|filter| http_role(filter) == Role::Router)
}

fn first(role: Role, roles: &[Role], from: usize) -> Option<usize> {
    roles.iter().skip(from).position(|it| *it == role).map(|index| index + from)
}

/// Where an anchor is absent, its positions slide to the next one.
fn slide(anchors: [Option<usize>; 4]) -> Vec<Gap> {
    let closing = [Position::PreAuthN, Position::PreAuthZ, Position::PreStats, Position::BeforeRouter];
    let mut gaps: Vec<Gap> = Vec::with_capacity(4);
    for (last, at) in closing.into_iter().zip(anchors) {
        let Some(at) = at else { continue };
        let first = gaps.last().map_or(Position::PreAuthN, |before| Position::ALL[before.last as usize + 1]);
        gaps.push(Gap { first, last, at });
    }
    gaps
}

fn http_role(filter: &HttpFilter) -> Role {
    let type_name = match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => typed(config),
        Some(http_filter::ConfigType::ConfigDiscovery(source)) => discovered(source),
        None => String::new(),
    };
    match type_name.strip_prefix("envoy.extensions.filters.http.").unwrap_or(&type_name) {
        "jwt_authn.v3.JwtAuthentication"
        | "oauth2.v3.OAuth2"
        | "basic_auth.v3.BasicAuth"
        | "api_key_auth.v3.ApiKeyAuth" => Role::Authentication,
        "rbac.v3.RBAC" | "ext_authz.v3.ExtAuthz" => Role::Authorization,
        "grpc_stats.v3.FilterConfig" | "stats.PluginConfig" => Role::Stats,
        "router.v3.Router" => Role::Router,
        _ if filter.name == "istio.stats" => Role::Stats,
        _ => Role::Other,
    }
}

/// Whether the filter is an HTTP connection manager, however it is wrapped.
pub fn is_manager(filter: &Filter) -> bool {
    network_type(filter) == message_name(HTTP_CONNECTION_MANAGER)
}

fn network_type(filter: &Filter) -> String {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => typed(config),
        Some(filter::ConfigType::ConfigDiscovery(source)) => discovered(source),
        None => String::new(),
    }
}

fn network_role(filter: &Filter) -> Role {
    match network_type(filter).as_str() {
        "envoy.extensions.filters.network.rbac.v3.RBAC" | "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
            Role::Authorization
        }
        _ => Role::Other,
    }
}

/// Both TypedStructs: the type is inside.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
}

fn typed(config: &Any) -> String {
    match message_name(&config.type_url) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => TypedStruct::decode(&config.value[..])
            .map(|inner| message_name(&inner.type_url).to_owned())
            .unwrap_or_default(),
        name => name.to_owned(),
    }
}

/// A filter that the user discovers is what its only type says.
fn discovered(source: &ExtensionConfigSource) -> String {
    match source.type_urls.as_slice() {
        [only] => message_name(only).to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Position::{BeforeRouter, PostAuthN, PostAuthZ, PostStats, PreAuthN, PreAuthZ, PreStats};

    fn filter(name: &str) -> HttpFilter {
        let type_name = match name {
            "jwt" => "jwt_authn.v3.JwtAuthentication",
            "basic" => "basic_auth.v3.BasicAuth",
            "rbac" => "rbac.v3.RBAC",
            "authz" => "ext_authz.v3.ExtAuthz",
            "stats" => "grpc_stats.v3.FilterConfig",
            "router" => "router.v3.Router",
            _ => "cors.v3.Cors",
        };
        let type_url = format!("type.googleapis.com/envoy.extensions.filters.http.{type_name}");
        HttpFilter {
            name: name.into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(Any { type_url, ..Default::default() })),
            ..Default::default()
        }
    }

    fn gaps(filters: &str) -> Vec<(Position, Position, usize)> {
        let filters: Vec<_> = filters.split_whitespace().map(filter).collect();
        http_gaps(&filters).into_iter().map(|gap| (gap.first, gap.last, gap.at)).collect()
    }

    #[test]
    fn four_anchors_make_four_gaps() {
        let expected =
            [(PreAuthN, PreAuthN, 1), (PostAuthN, PreAuthZ, 3), (PostAuthZ, PreStats, 5), (PostStats, BeforeRouter, 7)];
        assert_eq!(gaps("cors jwt cors rbac cors stats cors router"), expected);
    }

    #[test]
    fn positions_slide_to_the_next_anchor() {
        assert_eq!(gaps("cors router"), [(PreAuthN, BeforeRouter, 1)]);
        assert_eq!(gaps("rbac router"), [(PreAuthN, PreAuthZ, 0), (PostAuthZ, BeforeRouter, 1)]);
        assert_eq!(
            gaps("jwt stats router"),
            [(PreAuthN, PreAuthN, 0), (PostAuthN, PreStats, 1), (PostStats, BeforeRouter, 2)]
        );
    }

    #[test]
    fn an_authorization_in_front_of_the_authentication_is_no_anchor() {
        assert_eq!(
            gaps("authz jwt basic rbac authz router"),
            [(PreAuthN, PreAuthN, 1), (PostAuthN, PreAuthZ, 3), (PostAuthZ, BeforeRouter, 5)]
        );
        assert_eq!(gaps("authz jwt router"), [(PreAuthN, PreAuthN, 1), (PostAuthN, BeforeRouter, 2)]);
    }

    #[test]
    fn stats_count_only_behind_the_other_anchors() {
        assert_eq!(gaps("stats rbac router"), [(PreAuthN, PreAuthZ, 1), (PostAuthZ, BeforeRouter, 2)]);
        assert_eq!(
            gaps("rbac stats authz stats router"),
            [(PreAuthN, PreAuthZ, 0), (PostAuthZ, PreStats, 3), (PostStats, BeforeRouter, 4)]
        );
    }

    #[test]
    fn a_chain_without_router_is_filled_before_its_last_filter() {
        assert_eq!(gaps("cors cors"), [(PreAuthN, BeforeRouter, 1)]);
        assert_eq!(gaps(""), [(PreAuthN, BeforeRouter, 0)]);
    }

    #[test]
    fn wrapped_and_discovered_filters_are_known_by_their_inner_type() {
        let jwt = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
        let wrapped = Any {
            type_url: "type.googleapis.com/xds.type.v3.TypedStruct".into(),
            value: TypedStruct { type_url: jwt.into() }.encode_to_vec(),
        };
        let discovery = |type_urls: &[&str]| ExtensionConfigSource {
            type_urls: type_urls.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let role = |config_type| http_role(&HttpFilter { config_type: Some(config_type), ..Default::default() });
        assert_eq!(role(http_filter::ConfigType::TypedConfig(wrapped)), Role::Authentication);
        assert_eq!(role(http_filter::ConfigType::ConfigDiscovery(discovery(&[jwt]))), Role::Authentication);
        assert_eq!(role(http_filter::ConfigType::ConfigDiscovery(discovery(&[jwt, "x/y"]))), Role::Other);
    }
}
