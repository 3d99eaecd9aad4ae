//! Fetches a module over http(s).
//!
//! Comes in: a URL. Goes out: the whole body, or one sentence why not. How servers are reached is the transport's.

use http::StatusCode;
use reqwest::Response;
use url::Url;

use super::error::FetchError;
use super::once::Progress;
use super::registry::retry_after;
use super::spool::{Batch, Failed, Spool, Spooled, Spools};
use super::transport::{Reach, Request, Transport, cause};
use crate::model::shown_url;

/// The body of `url`, and what it is to be read with. `progress` is told of the bytes as they come.
pub async fn get(
    transport: &Transport,
    spools: &Spools,
    url: &str,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Spooled, Batch), FetchError> {
    let limit = transport.limits().overall;
    match tokio::time::timeout(limit, get_unhurried(transport, spools, url, progress)).await {
        Ok(result) => result,
        Err(_) => Err(failed(url, format!("not finished after {} s", limit.as_secs()))),
    }
}

pub fn failed(url: &str, cause: String) -> FetchError {
    FetchError::Transport { url: shown_url(url), cause }
}

async fn get_unhurried(
    transport: &Transport,
    spools: &Spools,
    url: &str,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Spooled, Batch), FetchError> {
    let parsed = Url::parse(url).map_err(|error| failed(url, error.to_string()))?;
    let sent = transport.send(Request::get(parsed, Reach::Written)).await;
    let response = sent.map_err(|error| failed(url, error.cause))?;
    if response.status() != StatusCode::OK {
        let retry_after = retry_after(response.status(), response.headers());
        return Err(FetchError::Status { url: shown_url(url), status: response.status(), retry_after });
    }
    let limit = transport.limits().size;
    if response.content_length().is_some_and(|announced| announced > limit) {
        return Err(too_large(url, limit));
    }
    if let Some(announced) = response.content_length() {
        progress(Progress::Total(announced));
    }
    let mut batch = spools.batch().await;
    let spool = batch.open().await;
    Ok((body(response, spool, url, limit, progress).await?, batch))
}

async fn body(
    mut response: Response,
    mut spool: Spool,
    url: &str,
    limit: u64,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Spooled, FetchError> {
    let disk = |error: Failed| failed(url, error.to_string());
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, cause(error)))? {
        if spool.len() + chunk.len() as u64 > limit {
            return Err(too_large(url, limit));
        }
        spool.write(&chunk).await.map_err(disk)?;
        progress(Progress::Bytes(chunk.len() as u64));
    }
    Ok(spool.finish())
}

fn too_large(url: &str, limit: u64) -> FetchError {
    FetchError::TooLarge { location: format!("GET {}", shown_url(url)), limit }
}

#[cfg(test)]
mod tests;
