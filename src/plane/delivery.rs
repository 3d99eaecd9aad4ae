//! Which proxies are told modules by digest, and where they fetch them (design, section 5, rule 14).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::compile::{InvalidModulesUrl, ModuleServer};
use crate::model::{ModuleDelivery, Proxy};
use crate::snapshot::ResourceType;
use crate::xds::Service;

/// `--module-delivery`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeliveryMode {
    /// By digest where --modules-url is given or the proxy is on this machine, and the module is larger than 16 KiB.
    #[default]
    Auto,
    /// Inside the resources that name them, again with every edit.
    Inline,
    /// By digest, whatever their size.
    Digest,
}

/// Smaller modules are not worth a fetch: an edit carries them again in a packet or a dozen.
const WORTH_A_FETCH: usize = 16 << 10;

/// Proxies that are remembered to have fallen back; past it all are tried anew, which costs each ten seconds at worst.
const FALLEN_BACK: usize = 10_000;

/// The one place that decides how modules reach a proxy.
#[derive(Debug, Default)]
pub struct Deliveries {
    server: Option<Arc<ModuleServer>>,
    /// The server's address is good for every proxy, not only for those on this machine.
    is_for_all: bool,
    /// Envoys whose modules travel inline for the life of their process, and why.
    fallen_back: HashMap<String, &'static str>,
}

impl Deliveries {
    /// `listen` is where the module server listens, `url` what proxies are to be told of it.
    pub fn new(mode: DeliveryMode, listen: SocketAddr, url: Option<&str>) -> Result<Self, InvalidModulesUrl> {
        let larger_than = match mode {
            DeliveryMode::Inline => return Ok(Self::default()),
            DeliveryMode::Auto => WORTH_A_FETCH,
            DeliveryMode::Digest => 0,
        };
        let derived = format!("http://{}", reachable(listen));
        let server = ModuleServer::new(url.unwrap_or(&derived), larger_than)?;
        let is_shared = !listen.ip().is_unspecified() && !listen.ip().is_loopback();
        let is_for_all = url.is_some() || (mode == DeliveryMode::Digest && is_shared);
        Ok(Self { server: Some(Arc::new(server)), is_for_all, fallen_back: HashMap::new() })
    }

    pub fn server(&self) -> Option<&Arc<ModuleServer>> {
        self.server.as_ref()
    }

    /// How modules reach this proxy, by all services that it uses, and why inline where they do. A stream beside ADS gets
    /// them inline all the same.
    pub fn choose(
        &self,
        proxy: &Proxy,
        services: impl Iterator<Item = Service> + Clone,
        peer: Option<IpAddr>,
    ) -> (ModuleDelivery, &'static str) {
        let uses = |service: Service| services.clone().any(|it| it == service);
        let why_inline = match self.fallen_back.get(&proxy.remembered_as()) {
            _ if self.server.is_none() => "--module-delivery inline",
            Some(reason) => reason,
            None if !proxy.capabilities.wasm => "it runs no Wasm",
            None if !uses(Service::Ads) => "it does not use ADS",
            // Nor can a listener got outside ADS name the staging name.
            None if uses(Service::Single(ResourceType::Listener)) => "it does not take its listeners by ADS",
            None if !self.is_for_all && !peer.is_some_and(|peer| peer.is_loopback()) => {
                "it is not on the control plane's machine, and no --modules-url is given"
            }
            None => return (ModuleDelivery::Digest, ""),
        };
        (ModuleDelivery::Inline, why_inline)
    }

    /// This process cannot fetch modules.
    pub fn fell_back(&mut self, proxy: &Proxy, reason: &'static str) {
        if self.fallen_back.len() == FALLEN_BACK {
            self.fallen_back.clear();
        }
        self.fallen_back.insert(proxy.remembered_as(), reason);
    }

    /// This proxy starts as a new process.
    pub fn forget(&mut self, proxy: &Proxy) {
        self.fallen_back.remove(&proxy.remembered_as());
    }
}

/// Where a listener on all addresses is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Proxy {
        Proxy::named("e1", "shop")
    }

    #[test]
    fn modules_go_by_digest_to_whom_the_server_is_within_reach() {
        use DeliveryMode::{Auto, Digest, Inline};
        let url = Some("http://modules.test");
        let (here, there) = ([127, 0, 0, 1].into(), [10, 1, 2, 3].into());
        for (mode, listen, url, to_here, to_there) in [
            (Auto, "127.0.0.1:1", None, true, false),
            (Auto, "0.0.0.0:1", None, true, false),
            (Auto, "10.0.0.1:1", None, true, false),
            (Auto, "127.0.0.1:1", url, true, true),
            (Digest, "10.0.0.1:1", None, true, true),
            (Digest, "0.0.0.0:1", None, true, false),
            (Inline, "127.0.0.1:1", url, false, false),
        ] {
            let deliveries = Deliveries::new(mode, listen.parse().unwrap(), url).unwrap();
            let is_by_digest =
                |peer| deliveries.choose(&proxy(), [Service::Ads].into_iter(), Some(peer)).0 == ModuleDelivery::Digest;
            assert_eq!((is_by_digest(here), is_by_digest(there)), (to_here, to_there), "{mode:?} {listen} {url:?}");
        }
    }

    #[test]
    fn a_proxy_that_fell_back_stays_inline_until_it_starts_anew() {
        let mut deliveries = Deliveries::new(DeliveryMode::Auto, "127.0.0.1:1".parse().unwrap(), None).unwrap();
        let peer = Some([127, 0, 0, 1].into());
        deliveries.fell_back(&proxy(), "no way");
        assert_eq!(deliveries.choose(&proxy(), [Service::Ads].into_iter(), peer), (ModuleDelivery::Inline, "no way"));
        deliveries.forget(&proxy());
        assert_eq!(deliveries.choose(&proxy(), [Service::Ads].into_iter(), peer), (ModuleDelivery::Digest, ""));
        let mut without = proxy();
        without.capabilities.wasm = false;
        assert_eq!(
            deliveries.choose(&without, [Service::Ads].into_iter(), peer),
            (ModuleDelivery::Inline, "it runs no Wasm")
        );
    }
}
