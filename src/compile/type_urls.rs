//! Types by which Envoy tells filters apart, as it writes them in an `Any`.

pub const FILTER_CHAIN: &str = "type.googleapis.com/envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig";
pub const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub const HTTP_LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
pub const HTTP_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
pub const HTTP_WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
pub const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
pub const NETWORK_WASM: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";
pub const QUIC_TRANSPORT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport";

/// The message that a type URL names. What stands before the last slash means nothing to Envoy.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// Whether two type URLs name one message.
pub fn is_same(a: &str, b: &str) -> bool {
    message_name(a) == message_name(b)
}
