//! Modules by digest: where a proxy fetches them, and the listener through which they come into its code cache before
//! anything in the traffic's way names them (design, section 5, rules 13 and 14).

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::HttpUri;
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::google::protobuf::BoolValue;
use prost::Message as _;
use url::{Host as UrlHost, Url};

use super::names::MODULES_CLUSTER;
use super::short_form;
use super::stub::Stub;
use crate::model::{Digest, Direction, ForwardTo, Host, ListenerProtocol, ListenerSpec, Module};
use crate::snapshot::{Attempt, STAGING};

/// Longer than the largest module takes on a slow line. Envoy gives up then, and the next attempt starts anew.
const FETCHED_WITHIN: Duration = Duration::from_secs(600);

/// Nothing listens there: the listener is bound to no port.
const UNBOUND_PORT: u16 = 1;

/// The server that proxies fetch modules from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleServer {
    url: Url,
    upstream: ForwardTo,
    larger_than: usize,
}

/// Why a text is not the URL of a module server.
#[derive(Debug, thiserror::Error)]
pub enum InvalidModulesUrl {
    #[error(transparent)]
    Url(#[from] url::ParseError),
    #[error("must be http://HOST:PORT or https://HOST:PORT, maybe with a path: {url}")]
    Shape { url: Url },
}

impl ModuleServer {
    /// `url` as proxies reach it; modules up to `larger_than` bytes travel inline all the same.
    pub fn new(url: &str, larger_than: usize) -> Result<Self, InvalidModulesUrl> {
        let mut url = Url::parse(url)?;
        let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let host = match url.host().filter(|_| is_plain && matches!(url.scheme(), "http" | "https")) {
            Some(UrlHost::Domain(name)) => Host::Name(name.to_owned()),
            Some(UrlHost::Ipv4(address)) => Host::Address(address.into()),
            Some(UrlHost::Ipv6(address)) => Host::Address(address.into()),
            None => return Err(InvalidModulesUrl::Shape { url }),
        };
        let port = url.port_or_known_default().expect("http and https have one");
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { url, upstream: ForwardTo { host, port }, larger_than })
    }

    /// Whether a module is worth a fetch.
    pub fn serves(&self, module: &Module) -> bool {
        module.bytes.len() > self.larger_than
    }

    /// The cluster that leads there. An Envoy that is to speak TLS with it has it in its bootstrap, with the authorities
    /// to trust.
    pub fn cluster(&self) -> Option<Cluster> {
        (self.url.scheme() == "http").then(|| short_form::cluster_of(MODULES_CLUSTER.into(), &self.upstream))
    }

    /// Where a module is fetched; during an attempt, in words that this attempt alone has.
    pub fn source(&self, digest: &Digest, attempt: Option<&Attempt>) -> HttpUri {
        let base = self.url.as_str().trim_end_matches('/');
        let token = attempt.map(|attempt| format!("?stream={:016x}", attempt.token)).unwrap_or_default();
        let nudge = Duration::from_millis(attempt.map_or(0, |attempt| attempt.number.into()));
        let timeout = FETCHED_WITHIN + nudge;
        let duration = envoy_types::pb::google::protobuf::Duration {
            seconds: timeout.as_secs().cast_signed(),
            nanos: timeout.subsec_nanos().cast_signed(),
        };
        HttpUri {
            uri: format!("{base}/modules/sha256/{digest}.wasm{token}"),
            timeout: Some(duration),
            http_upstream_type: Some(HttpUpstreamType::Cluster(MODULES_CLUSTER.into())),
        }
    }
}

/// The listener that is bound to no port. An Envoy that has it in its bootstrap ignores this one.
pub fn listener() -> Listener {
    let spec = ListenerSpec {
        name: STAGING.into(),
        direction: Direction::Gateway,
        port: UNBOUND_PORT,
        bind: [127, 0, 0, 1].into(),
        protocol: ListenerProtocol::Http,
        forward_to: None,
    };
    let mut listener = short_form::listener(&spec);
    listener.bind_to_port = Some(BoolValue { value: false });
    for filter in listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
        let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
        let mut manager = HttpConnectionManager::decode(&*any.value).expect("the short form has just made it");
        manager.http_filters.insert(0, Stub::staging().into_http());
        any.value = manager.encode_to_vec();
    }
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_server_is_an_http_url_and_its_modules_have_their_digest_for_a_name() {
        let digest = Digest::of(b"module");
        let path = format!("modules/sha256/{digest}.wasm");
        for (url, wanted) in [
            ("http://127.0.0.1:18001", format!("http://127.0.0.1:18001/{path}")),
            ("http://modules.test/", format!("http://modules.test/{path}")),
            ("http://[::1]:1/a/b/", format!("http://[::1]:1/a/b/{path}")),
        ] {
            let server = ModuleServer::new(url, 0).unwrap();
            assert_eq!(server.source(&digest, None).uri, wanted);
            assert!(server.cluster().is_some());
        }
        assert_eq!(ModuleServer::new("https://modules.test", 0).unwrap().cluster(), None);
        for url in ["", "modules.test:1", "ftp://modules.test", "http://u@modules.test", "http://modules.test/?q"] {
            assert!(ModuleServer::new(url, 0).is_err(), "{url}");
        }
    }

    #[test]
    fn every_attempt_has_bytes_of_its_own() {
        let server = ModuleServer::new("http://modules.test", 0).unwrap();
        let digest = Digest::of(b"module");
        let source = |number| server.source(&digest, Some(&Attempt { digest, token: 7, number }));
        assert_eq!(source(0).uri, source(1).uri);
        assert!(source(0).uri.ends_with(".wasm?stream=0000000000000007"));
        assert_ne!(source(0).timeout, source(1).timeout);
    }
}
