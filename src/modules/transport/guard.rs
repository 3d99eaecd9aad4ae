//! Stands between a URL and the socket: names are resolved here, and addresses that may not be dialled drop out.
//!
//! Checked when a connection is made, so that a name cannot mean one address when it is checked and another one when
//! it is dialled. Behind a proxy of the environment the proxy resolves names: only literal addresses and names of
//! metadata services are known here then, and the rest is the proxy's to refuse.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::address::{Class, Network, class};

/// Names by which metadata services are known, for proxies that resolve them.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// Which addresses the operator lets modules be fetched from.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `--module-deny-private`: neither private nor loopback.
    pub deny_private: bool,
    /// `--module-allow-address`: in spite of that.
    pub allowed: Vec<Network>,
}

/// How far one request may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// What somebody wrote into a manifest or on a command line.
    Written,
    /// What a server named, in a redirect or as its token server: not this machine itself.
    Named,
}

#[derive(Debug)]
pub struct Guard {
    rules: Rules,
    /// Hosts of the environment's proxies, which may be anywhere.
    proxies: BTreeSet<String>,
}

/// An address that is not dialled, and why not.
#[derive(Debug, thiserror::Error)]
#[error("{name} {}: {reason}", if *.is_literal { "is not dialled".to_owned() } else { format!("resolves to {address}, which is not dialled") })]
pub struct NotDialled {
    name: String,
    address: IpAddr,
    is_literal: bool,
    reason: &'static str,
}

impl Guard {
    pub fn new(rules: Rules) -> Self {
        Self { rules, proxies: proxy_hosts(|name| std::env::var(name).ok()) }
    }

    /// What can be said of a URL before anything is resolved.
    pub fn check(&self, url: &Url, reach: Reach) -> Result<(), NotDialled> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(name)) if METADATA_NAMES.contains(&name.trim_end_matches('.')) => {
                let address = IpAddr::from([169, 254, 169, 254]);
                let reason = "a metadata service of a cloud";
                return Err(NotDialled { name: name.to_owned(), address, is_literal: true, reason });
            }
            _ => return Ok(()),
        };
        let not_dialled = |reason| NotDialled { name: address.to_string(), address, is_literal: true, reason };
        self.judge(address, reach).map_err(not_dialled)
    }

    fn judge(&self, address: IpAddr, reach: Reach) -> Result<(), &'static str> {
        let class = class(address);
        if let Class::Never(reason) = class {
            return Err(reason);
        }
        if self.rules.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        match class {
            Class::Loopback | Class::Private if self.rules.deny_private => {
                Err("private addresses are denied (--module-deny-private; --module-allow-address opens some)")
            }
            Class::Loopback if reach == Reach::Named => {
                Err("a server elsewhere may not send us to this machine (--module-allow-address would allow it)")
            }
            _ => Ok(()),
        }
    }

    fn sift(
        &self,
        name: &str,
        reach: Reach,
        found: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, NotDialled> {
        let is_proxy = self.proxies.contains(name);
        let (mut fit, mut refused) = (Vec::new(), None);
        for socket in found {
            let address = socket.ip();
            match self.judge(address, reach) {
                Err(reason) if !is_proxy || matches!(class(address), Class::Never(_)) => {
                    refused = Some(NotDialled { name: name.to_owned(), address, is_literal: false, reason });
                }
                _ => fit.push(socket),
            }
        }
        match refused.filter(|_| fit.is_empty()) {
            Some(refused) => Err(refused),
            None => Ok(fit),
        }
    }
}

/// The resolver of one HTTP client.
pub struct Resolver {
    pub guard: Arc<Guard>,
    pub reach: Reach,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, reach) = (Arc::clone(&self.guard), self.reach);
        Box::pin(async move {
            // The port is the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let fit = guard.sift(name.as_str(), reach, found)?;
            Ok(Box::new(fit.into_iter()) as Addrs)
        })
    }
}

fn proxy_hosts(variable: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let names = ["http_proxy", "https_proxy", "all_proxy"];
    let set = names.iter().flat_map(|name| [variable(name), variable(&name.to_ascii_uppercase())]).flatten();
    let host = |text: String| {
        let text = if text.contains("://") { text } else { format!("http://{text}") };
        Url::parse(&text).ok()?.host_str().map(str::to_owned)
    };
    set.filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(deny_private: bool, allowed: &[&str]) -> Guard {
        let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
        Guard { rules: Rules { deny_private, allowed }, proxies: ["proxy.test".to_owned()].into() }
    }

    fn check(guard: &Guard, url: &str, reach: Reach) -> bool {
        guard.check(&Url::parse(url).unwrap(), reach).is_ok()
    }

    #[test]
    fn every_spelling_of_an_address_is_seen_through() {
        let open = guard(false, &["0.0.0.0/0", "::/0"]);
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "0",
        ] {
            assert!(!check(&open, &format!("http://{host}/latest"), Reach::Written), "{host}");
        }
    }

    #[test]
    fn private_and_loopback_are_the_operators_choice() {
        let (open, shut, opened) = (guard(false, &[]), guard(true, &[]), guard(true, &["10.0.0.0/8"]));
        for url in ["http://10.0.0.1", "http://[fd12::1]", "http://127.0.0.1", "http://127.1"] {
            assert!(check(&open, url, Reach::Written) && !check(&shut, url, Reach::Written), "{url}");
        }
        assert!(check(&opened, "http://10.0.0.1", Reach::Named) && !check(&opened, "http://127.0.0.1", Reach::Written));
        assert!(check(&shut, "http://1.1.1.1", Reach::Named) && check(&shut, "http://name.test", Reach::Named));
    }

    #[test]
    fn a_server_may_send_us_to_private_networks_and_not_to_this_machine() {
        let open = guard(false, &[]);
        assert!(
            check(&open, "http://10.0.0.1", Reach::Named)
                && !check(&open, "http://localhost.test@127.0.0.1", Reach::Named)
        );
        assert!(check(&guard(false, &["127.0.0.0/8"]), "http://127.0.0.1", Reach::Named));
    }

    #[test]
    fn a_name_is_judged_by_all_its_addresses_and_a_proxy_may_be_anywhere() {
        let guard = guard(true, &[]);
        let sift = |name: &str, addresses: &[&str]| {
            let found = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
            guard.sift(name, Reach::Written, found).map(|fit| fit.len()).map_err(|error| error.to_string())
        };
        assert_eq!(sift("a.test", &["10.0.0.1", "1.1.1.1"]), Ok(1));
        let said = sift("a.test", &["10.0.0.1"]).unwrap_err();
        assert!(said.starts_with("a.test resolves to 10.0.0.1, which is not dialled: private"), "{said}");
        assert_eq!(sift("proxy.test", &["10.0.0.1"]), Ok(1));
        assert!(sift("proxy.test", &["169.254.169.254"]).is_err());
    }

    #[test]
    fn proxies_of_the_environment_are_known_with_and_without_scheme() {
        let hosts = proxy_hosts(|name| match name {
            "http_proxy" => Some("http://user:pass@one.test:3128/".to_owned()),
            "HTTPS_PROXY" => Some("two.test:3128".to_owned()),
            "ALL_PROXY" => Some(String::new()),
            _ => None,
        });
        assert_eq!(hosts, ["one.test".to_owned(), "two.test".to_owned()].into());
    }
}
