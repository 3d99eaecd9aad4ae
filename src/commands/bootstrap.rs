//! `wasmplane bootstrap`: in come a node's id, namespace and labels; out goes the YAML that starts its Envoy.
//!
//! Also the source of `envoy-bootstrap/*-ads.yaml`, which a test compares with what is printed here. Opens no socket
//! and resolves no name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;

use super::{Outcome, parse_label};

/// Prints an Envoy bootstrap for a node id, namespace and labels.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What people call this proxy.
    #[arg(long)]
    pub node_id: String,
    /// The namespace whose plugins and templates apply to this proxy.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// A label that selectors are compared with; repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// The group this proxy belongs to (`node.cluster`).
    #[arg(long, default_value = "default")]
    pub cluster: String,
    /// Where wasmplane listens for xDS.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000")]
    pub xds: Endpoint,
    /// Authorities that wasmplane's certificate must come from (PEM): the xDS connection speaks TLS.
    #[arg(long, value_name = "PATH")]
    pub xds_ca: Option<PathBuf>,
    /// The certificate that this proxy shows to wasmplane (PEM).
    #[arg(long, value_name = "PATH", requires_all = ["xds_ca", "xds_key"])]
    pub xds_cert: Option<PathBuf>,
    /// The private key of --xds-cert (PEM).
    #[arg(long, value_name = "PATH", requires = "xds_cert")]
    pub xds_key: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// Envoy's own admin port, on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    pub admin_port: u16,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    anyhow::ensure!(!args.node_id.is_empty(), "--node-id: must not be empty, as a proxy without an id is refused");
    print!("{}", Bootstrap::from(args));
    Ok(Outcome::Fine)
}

/// How Envoy asks: for changes, or for everything each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    #[default]
    Delta,
    Sotw,
}

impl Protocol {
    fn api_type(self) -> &'static str {
        match self {
            Self::Delta => "DELTA_GRPC",
            Self::Sotw => "GRPC",
        }
    }
}

/// An address or a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Envoy resolves names itself; an address needs no resolver.
    fn cluster_type(&self) -> &'static str {
        if self.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" }
    }
}

/// Why a text is not `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error("expected HOST:PORT, with an IPv6 address in brackets")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidEndpoint)?;
        let port = port.parse().map_err(|_| InvalidEndpoint)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_bracketed = bare.len() != host.len();
        if bare.is_empty() || bare.contains(':') != is_bracketed {
            return Err(InvalidEndpoint);
        }
        Ok(Self { host: bare.to_owned(), port })
    }
}

/// What a bootstrap says. Its `Display` is the YAML.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub node_id: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub cluster: String,
    pub xds: Endpoint,
    /// Plain text without.
    pub tls: Option<ClientTls>,
    pub protocol: Protocol,
    pub admin_port: u16,
}

/// PEM files on the proxy's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// What wasmplane's certificate must come from.
    pub ca: PathBuf,
    /// The proxy's own certificate and key, where wasmplane asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl From<Args> for Bootstrap {
    fn from(args: Args) -> Self {
        Self {
            node_id: args.node_id,
            namespace: args.namespace,
            labels: args.labels.into_iter().collect(),
            cluster: args.cluster,
            xds: args.xds,
            tls: args.xds_ca.map(|ca| ClientTls { ca, identity: args.xds_cert.zip(args.xds_key) }),
            protocol: args.protocol,
            admin_port: args.admin_port,
        }
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> =
            self.labels.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
        write!(
            f,
            r#"# Run with:  envoy -c FILE --drain-strategy immediate --drain-time-s 600
# "immediate": an idle keep-alive client learns at once that its listener changed. The drain time is longer than the
# longest request: what still runs when it ends is cut off.
node:
  id: {id}
  cluster: {cluster}
  metadata:
    NAME: {id}
    NAMESPACE: {namespace}
    LABELS: {{{labels}}}

admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: {admin_port}}}}}

dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{{envoy_grpc: {{cluster_name: wasmplane-xds}}}}]
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}

static_resources:
  listeners:
  # Bound to no port and without traffic: modules are fetched through it before anything that serves requests names them.
  - name: wasmplane/staging
    bind_to_port: false
    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: wasmplane/staging
          route_config: {{name: wasmplane/staging}}
          http_filters:
          - name: wasmplane/staging
            config_discovery:
              config_source: {{ads: {{}}, resource_api_version: V3}}
              default_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}
              type_urls:
              - type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: wasmplane-xds
    type: {cluster_type}
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          # A server that is gone without a word is noticed within 35 s.
          http2_protocol_options: {{connection_keepalive: {{interval: 30s, timeout: 5s}}}}
    load_assignment:
      cluster_name: wasmplane-xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}
{tls}"#,
            id = quoted(&self.node_id),
            cluster = quoted(&self.cluster),
            namespace = quoted(&self.namespace),
            labels = labels.join(", "),
            admin_port = self.admin_port,
            api_type = self.protocol.api_type(),
            cluster_type = self.xds.cluster_type(),
            host = quoted(&self.xds.host),
            port = self.xds.port,
            tls = self.tls.as_ref().map(|tls| tls.transport_socket(&self.xds)).unwrap_or_default(),
        )
    }
}

impl ClientTls {
    /// Envoy checks no name unless it is told which.
    fn transport_socket(&self, server: &Endpoint) -> String {
        let host = quoted(&server.host);
        let is_address = server.host.parse::<IpAddr>().is_ok();
        let (name_type, sni) =
            if is_address { ("IP_ADDRESS", String::new()) } else { ("DNS", format!("        sni: {host}\n")) };
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let identity = self.identity.as_ref().map(|(cert, key)| {
            format!(
                "          tls_certificates:\n          - certificate_chain: {{filename: {}}}\n            \
                 private_key: {{filename: {}}}\n",
                path(cert),
                path(key)
            )
        });
        format!(
            r#"    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
{sni}        common_tls_context:
          tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
{identity}          validation_context:
            trusted_ca: {{filename: {ca}}}
            match_typed_subject_alt_names: [{{san_type: {name_type}, matcher: {{exact: {host}}}}}]
"#,
            identity = identity.unwrap_or_default(),
            ca = path(&self.ca),
        )
    }
}

/// A JSON string is a YAML string, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(protocol: Protocol) -> Bootstrap {
        Bootstrap {
            node_id: "hello-1".into(),
            namespace: "default".into(),
            labels: BTreeMap::from([("app".into(), "hello".into())]),
            cluster: "default".into(),
            xds: Endpoint { host: "127.0.0.1".into(), port: 18000 },
            tls: None,
            protocol,
            admin_port: 9901,
        }
    }

    #[test]
    fn the_ready_files_are_what_the_command_prints() {
        for (protocol, ready) in [
            (Protocol::Delta, include_str!("../../envoy-bootstrap/delta-ads.yaml")),
            (Protocol::Sotw, include_str!("../../envoy-bootstrap/sotw-ads.yaml")),
        ] {
            assert_eq!(ready, hello(protocol).to_string());
        }
    }

    #[test]
    fn a_name_is_resolved_by_envoy_and_an_address_is_not() {
        let cluster_type = |text: &str| text.parse::<Endpoint>().unwrap().cluster_type();
        assert_eq!(cluster_type("10.1.2.3:18000"), "STATIC");
        assert_eq!(cluster_type("[::1]:18000"), "STATIC");
        assert_eq!(cluster_type("wasmplane.example.com:18000"), "STRICT_DNS");
    }

    #[test]
    fn with_tls_the_name_of_wasmplane_is_checked_and_the_proxy_shows_who_it_is() {
        let identity = Some(("/tls/proxy.pem".into(), "/tls/proxy.key".into()));
        let tls = ClientTls { ca: "/tls/ca.pem".into(), identity };
        let context = |host: &str| {
            let bootstrap = Bootstrap {
                xds: Endpoint { host: host.into(), port: 18000 },
                tls: Some(tls.clone()),
                ..hello(Protocol::Delta)
            };
            let read: serde_json::Value = serde_saphyr::from_str(&bootstrap.to_string()).unwrap();
            read["static_resources"]["clusters"][0]["transport_socket"]["typed_config"].clone()
        };
        assert_eq!(
            context("wasmplane.example.com"),
            serde_json::json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "wasmplane.example.com",
                "common_tls_context": {
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_2",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "tls_certificates": [{
                        "certificate_chain": {"filename": "/tls/proxy.pem"},
                        "private_key": {"filename": "/tls/proxy.key"},
                    }],
                    "validation_context": {
                        "trusted_ca": {"filename": "/tls/ca.pem"},
                        "match_typed_subject_alt_names":
                            [{"san_type": "DNS", "matcher": {"exact": "wasmplane.example.com"}}],
                    },
                },
            })
        );
        assert_eq!(context("::1")["sni"], serde_json::Value::Null);
    }

    #[test]
    fn half_an_endpoint_is_refused() {
        for text in ["", "18000", "host", "host:", ":18000", "host:65536", "::1:18000", "[host]:1", "[]:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_with_a_meaning_in_yaml_stay_words() {
        let odd = Bootstrap {
            node_id: "on: \"#\n".into(),
            labels: BTreeMap::from([("a/b".into(), "true".into()), ("empty".into(), String::new())]),
            ..hello(Protocol::Delta)
        };
        let read: serde_json::Value = serde_saphyr::from_str(&odd.to_string()).unwrap();
        assert_eq!(read["node"]["id"], "on: \"#\n");
        assert_eq!(read["node"]["metadata"]["LABELS"], serde_json::json!({"a/b": "true", "empty": ""}));
    }
}
