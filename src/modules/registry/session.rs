//! Requests to one repository with one credential: answers what the registry asks for, once per request.
//!
//! What authorises goes to the registry's own origin, and passwords to the token server that this origin names, over
//! TLS wherever the registry itself is spoken to over TLS. A 401 from anywhere else is only an answer.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::Client;
use super::answer::{self, small_body};
use super::challenge::{Challenge, challenge};
use super::error::PullError;
use super::keychain::Whose;
use super::tokens::TokenKey;
use crate::model::{Credential, HostPort, ImageReference};
use crate::modules::transport::{Body, Reach, Request};

/// What is to be done in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

pub struct Session<'c> {
    pub client: &'c Client,
    pub reference: &'c ImageReference,
    is_plain: bool,
    key: TokenKey,
    /// Whose credentials, for messages.
    in_words: String,
    /// What the registry took last.
    authorization: Option<HeaderValue>,
}

/// A request within the repository.
pub struct Ask<'w> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body,
    /// For messages, such as `manifest v1`.
    pub what: &'w str,
}

impl<'c> Session<'c> {
    pub fn new(
        client: &'c Client,
        reference: &'c ImageReference,
        access: Access,
        whose: Whose,
        credential: Option<Credential>,
        in_words: String,
    ) -> Self {
        let scope = format!("repository:{}:{}", reference.repository, access.actions());
        let key = TokenKey { whose, credential, registry: reference.registry_name(), scope };
        let authorization = match &key.credential {
            Some(Credential::RegistryToken(token)) => secret_header(&format!("Bearer {token}")),
            _ => client.tokens.get(&key),
        };
        Self {
            client,
            reference,
            is_plain: client.transport.is_plain(&reference.registry),
            key,
            in_words,
            authorization,
        }
    }

    /// The URL of something of this repository.
    pub fn url(&self, rest: &str) -> Url {
        self.reference.url(self.is_plain, rest)
    }

    /// The answer, whatever its status, after one attempt to be let in.
    pub async fn send(&mut self, ask: &Ask<'_>) -> Result<reqwest::Response, PullError> {
        let response = self.send_once(ask).await?;
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != self.url("").origin() {
            return Ok(response);
        }
        let Some(challenge) = challenge(response.headers()) else { return Ok(response) };
        drop(response);
        self.client.tokens.forget(&self.key);
        let before = self.authorization.take();
        self.authorization = self.authorization_for(&challenge).await?;
        if self.authorization.is_none() || (self.authorization == before && matches!(challenge, Challenge::Basic)) {
            // Asked again all the same, so that its words are in the error.
            self.authorization = None;
        }
        self.send_once(ask).await
    }

    /// The answer if it has one of these statuses.
    pub async fn expect(&mut self, ask: &Ask<'_>, statuses: &[StatusCode]) -> Result<reqwest::Response, PullError> {
        let response = self.send(ask).await?;
        if statuses.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.refused(ask.what, response).await)
    }

    /// An answer that is not the one hoped for, in words.
    pub async fn refused(&self, what: &str, response: reqwest::Response) -> PullError {
        let error = answer::refusal(what, response, &self.in_words).await;
        match error {
            // What servers with TLS answer to plain HTTP, if anything.
            PullError::Answer { status: StatusCode::BAD_REQUEST, what, said, retry_after, .. } if self.is_plain => {
                let whom = "in plain HTTP; if it speaks TLS, name its certificate with --registry-ca".to_owned();
                PullError::Answer { status: StatusCode::BAD_REQUEST, what, said, whom, retry_after }
            }
            error => error,
        }
    }

    async fn send_once(&self, ask: &Ask<'_>) -> Result<reqwest::Response, PullError> {
        let is_own = ask.url.origin() == self.url("").origin();
        let request = Request {
            method: ask.method.clone(),
            url: ask.url.clone(),
            reach: if is_own { Reach::Written } else { self.reach_beyond() },
            headers: ask.headers.clone(),
            authorization: self.authorization.clone().filter(|_| is_own),
            body: ask.body.clone(),
        };
        let sent = self.client.transport.send(request).await;
        sent.map_err(|error| PullError::Transport { what: ask.what.to_owned(), cause: error.cause })
    }

    /// A registry on this machine may have its token server there as well.
    fn reach_beyond(&self) -> Reach {
        if self.reference.registry.is_loopback() { Reach::Written } else { Reach::Named }
    }

    async fn authorization_for(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, PullError> {
        match (challenge, &self.key.credential) {
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                Ok(secret_header(&Credential::basic(username, password)))
            }
            (Challenge::Basic, _) | (_, Some(Credential::RegistryToken(_))) => Ok(None),
            (Challenge::Bearer { realm, service }, _) => self.token(realm, service.as_deref()).await.map(Some),
        }
    }

    /// Asks the token server. The scope is ours, not the challenge's: no registry widens what it is used for.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, PullError> {
        let url = self.realm(realm)?;
        let what = format!("token from {}", HostPort::of(&url).map(|host| host.to_string()).unwrap_or_default());
        let parameters = [("service", service), ("scope", Some(self.key.scope.as_str()))];
        let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut request = Request::get(url, self.reach_beyond());
        match &self.key.credential {
            Some(Credential::IdentityToken(token)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(parameters);
                form.extend_pairs([
                    ("grant_type", "refresh_token"),
                    ("client_id", "wasmplane"),
                    ("refresh_token", token),
                ]);
                request.method = Method::POST;
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers.insert(CONTENT_TYPE, form_type);
                request.body = Body::Whole(form.finish().into());
            }
            credential => {
                request.url.query_pairs_mut().extend_pairs(parameters);
                if let Some(Credential::Password { username, password }) = credential {
                    request.authorization = secret_header(&Credential::basic(username, password));
                }
            }
        }
        let sent = self.client.transport.send(request).await;
        let response = sent.map_err(|error| PullError::Transport { what: what.clone(), cause: error.cause })?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(&what, response).await);
        }
        self.take_token(&what, &small_body(response).await)
    }

    fn realm(&self, realm: &str) -> Result<Url, PullError> {
        let refused = |reason: &str| PullError::Protocol { what: "token realm".to_owned(), reason: reason.to_owned() };
        let url = Url::parse(realm).map_err(|_| refused("is no URL"))?;
        // What stays on this machine is not sent in plain text to anybody.
        let is_here = || self.reference.registry.is_loopback() && HostPort::of(&url).is_some_and(|it| it.is_loopback());
        let is_plain_ok = || HostPort::of(&url).is_some_and(|host| self.client.transport.is_plain(&host));
        match url.scheme() {
            "https" => Ok(url),
            "http" if !self.is_plain && !is_here() => {
                Err(refused("is plain http, and the registry is spoken to over TLS"))
            }
            "http" if is_plain_ok() => Ok(url),
            "http" => Err(refused("is plain http, which is not spoken there (--insecure-registry would allow it)")),
            _ => Err(refused("is neither https nor http")),
        }
    }

    fn take_token(&self, what: &str, body: &[u8]) -> Result<HeaderValue, PullError> {
        let no_token = |reason: &str| PullError::Protocol { what: what.to_owned(), reason: reason.to_owned() };
        // Not the parser's words: they could quote a token.
        let answer: TokenAnswer =
            serde_json::from_slice(body).map_err(|_| no_token("the answer is no JSON with a token"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| no_token("the answer holds no token"))?;
        let header =
            secret_header(&format!("Bearer {token}")).ok_or_else(|| no_token("the token is no text for a header"))?;
        self.client.tokens.put(self.key.clone(), header.clone(), answer.expires_in);
        Ok(header)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

/// A negative or broken number of seconds is a token that has run out, not one that lasts.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.filter(|value| !value.is_null()).map(|value| value.as_u64().unwrap_or(0)))
}

/// Marked, so that nothing that prints headers shows it.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How long a server wants to be left alone: seconds, or a date.
pub fn wanted_pause(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::modules::transport::{Limits, Settings, Transport};

    #[test]
    fn a_registry_says_how_long_it_wants_to_be_left_alone() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |text: &str| {
            let headers = [(http::header::RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            wanted_pause(&headers, now)
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Thu, 01 Jan 2026 00:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(of("Thu, 01 Jan 1970 00:00:30 GMT"), Some(Duration::ZERO));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }

    #[test]
    fn a_registry_over_tls_cannot_have_the_password_sent_in_plain_text() {
        let insecure_registries = vec!["plain.test".parse().unwrap()];
        let registry_cas = vec![("localhost:5000".parse().unwrap(), Vec::new())];
        let settings = Settings { insecure_registries, registry_cas, ..Settings::default() };
        let client = Client::new(Arc::new(Transport::new(settings, Limits::default())));
        let realm = |registry: &str, realm: &str| {
            let reference = format!("{registry}/a").parse().unwrap();
            let session = Session::new(&client, &reference, Access::Pull, Whose::Operator, None, String::new());
            session.realm(realm).map(|url| url.to_string()).map_err(|error| error.to_string())
        };
        let refused = "token realm: is plain http, and the registry is spoken to over TLS";
        // Hosts that plain HTTP is spoken to: this machine, and one that the operator named.
        for plain in ["http://localhost:5001/token", "http://plain.test/token"] {
            assert_eq!(realm("r.test", plain), Err(refused.to_owned()));
            assert_eq!(realm("plain.test", plain), Ok(plain.to_owned()));
        }
        // Over TLS, and here.
        assert_eq!(realm("localhost:5000", "http://plain.test/token"), Err(refused.to_owned()));
        assert_eq!(
            realm("localhost:5000", "http://localhost:5001/token"),
            Ok("http://localhost:5001/token".to_owned())
        );
        for registry in ["r.test", "plain.test"] {
            assert_eq!(realm(registry, "https://tokens.test/"), Ok("https://tokens.test/".to_owned()));
        }
    }

    #[test]
    fn what_authorises_is_not_shown() {
        let header = secret_header("Bearer hunter2").unwrap();
        assert!(!format!("{header:?}").contains("hunter2"));
        assert_eq!(secret_header("a\nb"), None);
    }
}
