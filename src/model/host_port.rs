//! `HOST[:PORT]`, as flags and image references name a server.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// A server. Without a port it is any port of that host where a flag says it, and the scheme's own one where a
/// reference does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: Option<u16>,
}

/// The text is no `HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no HOST or HOST:PORT")]
pub struct InvalidHostPort {
    text: String,
}

impl HostPort {
    /// Of a URL, always with its port.
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self { host: url.host_str()?.to_ascii_lowercase(), port: url.port_or_known_default() })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn has_port(&self) -> bool {
        self.port.is_some()
    }

    /// Whether a flag with this value speaks of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        self.host == other.host && (self.port.is_none() || self.port == other.port)
    }

    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let invalid = || InvalidHostPort { text: text.chars().take(100).collect() };
        // A URL's rules for hosts, so that other spellings of an address are seen through.
        let url = Url::parse(&format!("https://{text}/")).map_err(|_| invalid())?;
        let is_bare = url.path() == "/"
            && url.username().is_empty()
            && url.password().is_none()
            && !text.contains(['/', '?', '#', '@', '\\']);
        if !is_bare {
            return Err(invalid());
        }
        let host = match url.host().ok_or_else(invalid)? {
            Host::Domain(name) if name.strip_suffix('.').unwrap_or(name).split('.').any(str::is_empty) => {
                return Err(invalid());
            }
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => format!("[{address}]"),
        };
        // The URL forgets a port that is the scheme's own.
        let port = if url.port().is_none() && text.ends_with(":443") { Some(443) } else { url.port() };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    #[test]
    fn a_flag_without_port_covers_every_port() {
        assert!(of("r.test").covers(&of("r.test:5000")) && of("r.test:5000").covers(&of("R.test:5000")));
        assert!(!of("r.test:5000").covers(&of("r.test:5001")) && !of("r.test").covers(&of("s.test")));
        assert_eq!(of("r.test:443").to_string(), "r.test:443");
        assert_eq!(HostPort::of(&Url::parse("https://r.test/x").unwrap()), Some(of("r.test:443")));
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for host in ["localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "0x7f.1"] {
            assert!(of(host).is_loopback(), "{host}");
        }
        assert!(!of("localhost.test").is_loopback() && !of("10.0.0.1").is_loopback());
    }

    #[test]
    fn what_is_more_or_less_than_a_server_is_refused() {
        for text in
            ["", "a/b", "http://r.test", "u@r.test", "r.test:99999", "a b", "r.test?x", ":5000", "r..test", ".test"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
