//! The HTTP proxies that the environment names, for messages: the HTTP client itself reads the same variables.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

const VARIABLES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// Which of them is asked for what.
pub struct Proxies(Matcher);

impl Proxies {
    pub fn from_env() -> Self {
        Self(Matcher::from_env())
    }

    /// `host:port` of the proxy through which this is asked for. Without its password.
    pub fn of(&self, url: &Url) -> Option<String> {
        let target: Uri = url.origin().ascii_serialization().parse().ok()?;
        let proxy = self.0.intercept(&target)?;
        let host = proxy.uri().host()?;
        Some(proxy.uri().port_u16().map_or(host.to_owned(), |port| format!("{host}:{port}")))
    }
}

/// Variables that are set to what is no proxy, which is as if they were not set. Without their values, which may hold a
/// password.
pub fn unusable_proxies() -> Vec<String> {
    unusable(|name| std::env::var(name).ok())
}

fn unusable(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let is_unusable = |name: &&str| variable(name).is_some_and(|value| !value.is_empty() && !is_proxy(&value));
    let said = |name: &str| format!("{name} is no URL such as http://proxy.example.com:3128, and has no effect");
    VARIABLES.iter().copied().filter(|name| is_unusable(name)).map(said).collect()
}

fn is_proxy(value: &str) -> bool {
    let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    Url::parse(&value).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_proxy_is_told_by_its_variable_and_an_empty_one_is_none() {
        let said = |value: &str| unusable(|name| (name == "HTTPS_PROXY").then(|| value.to_owned()));
        for fine in ["", "http://me:secret@proxy.test:3128", "https://proxy.test", "proxy.test:3128", "10.0.0.1"] {
            assert_eq!(said(fine), [""; 0], "{fine}");
        }
        for wrong in ["http://", "http://me:secret@", "socks5://proxy.test", "http://proxy.test:99999", "a b"] {
            let expected = "HTTPS_PROXY is no URL such as http://proxy.example.com:3128, and has no effect";
            assert_eq!(said(wrong), [expected], "{wrong}");
        }
    }
}
