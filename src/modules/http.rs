//! Fetches a module over http(s).
//!
//! Comes in: a URL. Goes out: the whole body, or one sentence why not. Everything has a limit: redirects, size, the time
//! without a byte, the time in all. Proxies are taken from the environment.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, redirect};

use super::error::FetchError;
use crate::model::shown_url;

/// What one fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the body, in bytes. Larger modules than this compile for minutes.
    pub size: u64,
    pub connect: Duration,
    /// Without a byte.
    pub idle: Duration,
    /// From the first byte sent to the last one received.
    pub overall: Duration,
    pub redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: 256 << 20,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            overall: Duration::from_secs(600),
            redirects: 5,
        }
    }
}

/// An HTTP client with limits.
pub struct Http {
    client: Client,
    limits: Limits,
}

impl Http {
    pub fn new(limits: Limits) -> Self {
        Self { client: client(&limits), limits }
    }

    pub async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        match tokio::time::timeout(self.limits.overall, self.get_unhurried(url)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Transport {
                url: shown_url(url),
                cause: format!("not finished after {} s", self.limits.overall.as_secs()),
            }),
        }
    }

    async fn get_unhurried(&self, url: &str) -> Result<Bytes, FetchError> {
        let failed = |error| FetchError::Transport { url: shown_url(url), cause: cause(error) };
        let response = self.client.get(url).send().await.map_err(failed)?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status { url: shown_url(url), status: response.status() });
        }
        self.body(response, url).await
    }

    async fn body(&self, mut response: Response, url: &str) -> Result<Bytes, FetchError> {
        let failed = |error| FetchError::Transport { url: shown_url(url), cause: cause(error) };
        let refused = || FetchError::TooLarge { location: format!("GET {}", shown_url(url)), limit: self.limits.size };
        if response.content_length().is_some_and(|announced| announced > self.limits.size) {
            return Err(refused());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > self.limits.size {
                return Err(refused());
            }
        }
        body.shrink_to_fit();
        Ok(body.into())
    }
}

fn client(limits: &Limits) -> Client {
    // main has done this already; here it serves the tests and other programs that use the library.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        Client::builder()
            .user_agent(concat!("wasmplane/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.idle)
            .redirect(redirect::Policy::limited(limits.redirects))
    };
    builder().build().unwrap_or_else(|error| {
        tracing::error!(error = %cause(error), advice = "install ca-certificates", "no https: no trusted certificates");
        builder().tls_certs_only([]).build().expect("a client that trusts nobody needs nothing from the system")
    })
}

/// The root of an error in a few words; the layers above it say little.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut root: &dyn Error = &error;
    while let Some(source) = root.source() {
        root = source;
    }
    if error.is_redirect() {
        "too many redirects".to_owned()
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

#[cfg(test)]
mod tests;
