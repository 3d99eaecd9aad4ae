//! HTTP to other people's servers: one way out for module URLs, registries and their token servers.
//!
//! Comes in: a request. Goes out: a response whose body is still to be read, or one sentence why there is none. Every
//! hop is checked by the [`Guard`]; redirects are followed here, a few times, and what authorises a request never goes
//! to another scheme, host or port. Proxies are taken from the environment.

mod address;
mod guard;
mod limits;
mod proxies;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
pub use reqwest::Certificate;
use reqwest::{Client, redirect};
use tokio::sync::watch;
use url::Url;

pub use address::{InvalidNetwork, Network};
pub use guard::{Guard, Reach, Rules};
pub use limits::Limits;
pub use proxies::unusable_proxies;

use crate::model::HostPort;
use proxies::Proxies;

/// What the operator says of the network that modules come from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub rules: Rules,
    /// `--insecure-registry`: plain HTTP there.
    pub insecure_registries: Vec<HostPort>,
    /// `--registry-ca`: certificates (PEM, checked) that are trusted there beside the system's. Those of one server add
    /// up; a server with a port goes before its host.
    pub registry_cas: Vec<(HostPort, Vec<Certificate>)>,
}

impl Settings {
    /// Whether the certificates can be used. Some faults show only then.
    pub fn check(&self) -> Result<(), InvalidCertificates> {
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        for (registry, certificates) in &self.registry_cas {
            let built = Client::builder().tls_certs_only(certificates.clone()).build();
            built.map_err(|error| InvalidCertificates { registry: registry.clone(), cause: cause(error) })?;
        }
        Ok(())
    }
}

/// `--registry-ca` names a file that holds no certificates that could be trusted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("--registry-ca {registry}: {cause}")]
pub struct InvalidCertificates {
    registry: HostPort,
    cause: String,
}

/// HTTP clients with limits and the guard.
pub struct Transport {
    guard: Arc<Guard>,
    proxies: Proxies,
    usual: Clients,
    /// Of registries with certificates of their own, those with a port first.
    trusting: Vec<(HostPort, Clients)>,
    insecure: Vec<HostPort>,
    limits: Limits,
}

/// Of one set of trusted certificates, one per reach: connections are shared by those who may.
struct Clients {
    written: Client,
    named: Client,
}

/// One request, before redirects.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub reach: Reach,
    pub headers: HeaderMap,
    /// Shown to the URL's own origin only.
    pub authorization: Option<HeaderValue>,
    pub body: Body,
}

/// What a request carries; can be sent again.
#[derive(Clone, Default)]
pub enum Body {
    #[default]
    Empty,
    Whole(bytes::Bytes),
    /// In pieces, each of which is reported as it goes.
    Watched(bytes::Bytes, Arc<dyn Fn(u64) + Send + Sync>),
}

/// Why there is no response, in a few words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct NoResponse {
    pub cause: String,
}

impl Request {
    pub fn get(url: Url, reach: Reach) -> Self {
        Self { method: Method::GET, url, reach, headers: HeaderMap::new(), authorization: None, body: Body::Empty }
    }
}

impl Transport {
    pub fn new(settings: Settings, limits: Limits) -> Self {
        Self::with(settings, limits, Some(limits.idle))
    }

    /// The limit on silence that a client has of itself counts from the request to the answer, whatever goes off
    /// meanwhile. Here silence ends an upload only where no piece goes off; how long all of it takes is for the caller.
    pub fn for_uploads(settings: Settings, limits: Limits) -> Self {
        Self::with(settings, limits, None)
    }

    fn with(settings: Settings, limits: Limits, silence: Option<Duration>) -> Self {
        let guard = Arc::new(Guard::new(settings.rules));
        let clients = |certificates: &[Certificate]| Clients {
            written: client(&limits, silence, &guard, Reach::Written, certificates),
            named: client(&limits, silence, &guard, Reach::Named, certificates),
        };
        let usual = clients(&[]);
        let mut trusting: Vec<_> = by_registry(settings.registry_cas)
            .into_iter()
            .map(|(registry, certificates)| (registry, clients(&certificates)))
            .collect();
        trusting.sort_by_key(|(registry, _)| !registry.has_port());
        Self { guard, proxies: Proxies::from_env(), usual, trusting, insecure: settings.insecure_registries, limits }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether `host[:port]` is spoken to in plain HTTP: where the operator said so, and on this machine, unless a
    /// certificate was named for it. Nothing is ever tried first and then fallen back from.
    pub fn is_plain(&self, host: &HostPort) -> bool {
        let has_ca = self.trusting.iter().any(|(registry, _)| registry.covers(host));
        self.insecure.iter().any(|it| it.covers(host)) || (host.is_loopback() && !has_ca)
    }

    /// Sends the request and follows its redirects.
    pub async fn send(&self, request: Request) -> Result<reqwest::Response, NoResponse> {
        let Request { method, mut url, mut reach, headers, mut authorization, body } = request;
        let first = url.origin();
        let starts_on_loopback = HostPort::of(&url).is_some_and(|host| host.is_loopback());
        for _ in 0..=self.limits.redirects {
            let response = self.send_once(&method, &url, reach, &headers, authorization.as_ref(), &body).await?;
            let may_follow = matches!(method, Method::GET | Method::HEAD);
            let Some(target) = redirect_target(&response).filter(|_| may_follow) else { return Ok(response) };
            let target = join(&url, &target)?;
            if url.scheme() == "https" && target.scheme() == "http" {
                return Err(no_response("redirected from https to plain http, which is not followed"));
            }
            if target.origin() != first {
                // Never comes back, not even if the way leads back.
                authorization = None;
                reach = if starts_on_loopback { reach } else { Reach::Named };
            }
            url = target;
        }
        Err(no_response("too many redirects"))
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &Url,
        reach: Reach,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
        body: &Body,
    ) -> Result<reqwest::Response, NoResponse> {
        self.guard.check(url, reach).map_err(|error| no_response(error.to_string()))?;
        let mut request = self.client(url, reach).request(method.clone(), url.clone()).headers(headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let idle = self.limits.idle;
        let answered = match body.clone() {
            Body::Empty => tokio::time::timeout(idle, request.send()).await.ok(),
            Body::Whole(bytes) => tokio::time::timeout(idle, request.body(bytes).send()).await.ok(),
            Body::Watched(bytes, report) => {
                let (went, pieces) = watch::channel(());
                let request = request.header(http::header::CONTENT_LENGTH, bytes.len());
                while_moving(request.body(watched(bytes, report, went)).send(), pieces, idle).await
            }
        };
        answered.ok_or_else(|| no_response("timed out"))?.map_err(|error| no_response(self.cause(url, error)))
    }

    /// With the proxy that was in between, where there was no connection.
    fn cause(&self, url: &Url, error: reqwest::Error) -> String {
        let proxy = self.proxies.of(url).filter(|_| error.is_connect());
        let cause = cause(error);
        match proxy {
            Some(proxy) => format!("{cause} (through the proxy {proxy} of the environment)"),
            None => cause,
        }
    }

    fn client(&self, url: &Url, reach: Reach) -> &Client {
        let trusting = HostPort::of(url).and_then(|host| self.trusting.iter().find(|(it, _)| it.covers(&host)));
        let Clients { written, named } = trusting.map_or(&self.usual, |(_, clients)| clients);
        match reach {
            Reach::Written => written,
            Reach::Named => named,
        }
    }
}

/// All certificates of a server, in whichever order they came.
fn by_registry(named: Vec<(HostPort, Vec<Certificate>)>) -> BTreeMap<HostPort, Vec<Certificate>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (registry, certificates) in named {
        all.entry(registry).or_default().extend(certificates);
    }
    all
}

/// Small enough that a bar moves, large enough to cost nothing.
const PIECE: usize = 64 << 10;

/// `went` is told of each piece, and dropped when all have gone.
fn watched(bytes: bytes::Bytes, report: Arc<dyn Fn(u64) + Send + Sync>, went: watch::Sender<()>) -> reqwest::Body {
    let pieces = futures::stream::unfold(bytes, move |mut rest| {
        let piece = rest.split_to(rest.len().min(PIECE));
        report(piece.len() as u64);
        went.send_replace(());
        std::future::ready((!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), rest)))
    });
    reqwest::Body::wrap_stream(pieces)
}

/// `None` when no piece has gone off for `idle`. Once all have, the work takes its time: the server may be storing them.
async fn while_moving<T>(work: impl Future<Output = T>, mut pieces: watch::Receiver<()>, idle: Duration) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            moved = tokio::time::timeout(idle, pieces.changed()) => match moved {
                Ok(Ok(())) => {}
                Ok(Err(_all_have_gone)) => return Some(work.await),
                Err(_silence) => return None,
            },
        }
    }
}

fn no_response(cause: impl Into<String>) -> NoResponse {
    NoResponse { cause: cause.into() }
}

fn redirect_target(response: &reqwest::Response) -> Option<HeaderValue> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    response.headers().get(LOCATION).filter(|_| is_redirect).cloned()
}

fn join(url: &Url, location: &HeaderValue) -> Result<Url, NoResponse> {
    let location = location.to_str().ok().and_then(|text| url.join(text).ok());
    let mut target = location.ok_or_else(|| no_response("redirected to what is no URL"))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(no_response(format!("redirected to {}:, which is not followed", target.scheme())));
    }
    // Credentials that a server writes into a URL are none of ours to show elsewhere.
    if target.origin() != url.origin() {
        let _only_fails_without_host = (target.set_username(""), target.set_password(None));
    }
    target.set_fragment(None);
    Ok(target)
}

fn client(
    limits: &Limits,
    silence: Option<Duration>,
    guard: &Arc<Guard>,
    reach: Reach,
    certificates: &[Certificate],
) -> Client {
    // main has done this already; here it serves the tests and other programs that use the library.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("wasmplane/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(guard::Resolver { guard: Arc::clone(guard), reach });
        match silence {
            Some(silence) => builder.read_timeout(silence),
            None => builder,
        }
    };
    let built = builder().tls_certs_merge(certificates.to_vec()).build();
    built.unwrap_or_else(|error| {
        tracing::error!(error = %cause(error), advice = "install ca-certificates", "no https: no trusted certificates");
        let only_these = builder().tls_certs_only(certificates.to_vec()).build();
        only_these.expect("a client that trusts no one else needs nothing from the system")
    })
}

/// The root of an error in a few words; the layers above it say little.
pub fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut root: &(dyn Error + 'static) = &error;
    while let Some(source) = root.source() {
        root = source;
    }
    if root.is::<guard::NotDialled>() {
        root.to_string()
    } else if is_no_tls(root) {
        "cannot connect: it does not speak TLS; where it is a registry with plain HTTP, --insecure-registry says so"
            .to_owned()
    } else if error.is_connect() && error.is_timeout() {
        "cannot connect: timed out".to_owned()
    } else if error.is_timeout() {
        "timed out".to_owned()
    } else if error.is_connect() {
        format!("cannot connect: {root}")
    } else if error.is_body() || error.is_decode() {
        format!("the body broke off: {root}")
    } else {
        root.to_string()
    }
}

/// What comes first on the connection is no TLS, as of a server with plain HTTP.
fn is_no_tls(root: &(dyn Error + 'static)) -> bool {
    let mut error = root;
    // An io::Error has the source of what it wraps, and hides that itself.
    while let Some(wrapped) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = wrapped;
    }
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

#[cfg(test)]
mod tests;
