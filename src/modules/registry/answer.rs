//! What a registry says when it does not give what was asked for: its status and its own words, bounded.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::error::PullError;
use super::session::wanted_pause;

/// Of a refusal, a token or another small answer. More of it is not read.
const SMALL: usize = 64 << 10;
/// Characters of foreign words in a message.
const WORDS: usize = 200;

/// The body as far as [`SMALL`]; what breaks off is as if it ended there.
pub async fn small_body(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(SMALL - body.len())]);
        if body.len() == SMALL {
            break;
        }
    }
    body
}

/// How long a busy server wants to be left alone.
pub fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    wanted_pause(headers, jiff::Timestamp::now()).filter(|_| is_busy)
}

pub async fn refusal(what: &str, response: reqwest::Response, whom: &str) -> PullError {
    let (status, headers) = (response.status(), response.headers().clone());
    let retry_after = retry_after(status, &headers);
    let is_about_rights = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
    let whom = if is_about_rights { whom.to_owned() } else { String::new() };
    PullError::Answer { what: what.to_owned(), status, said: said(&small_body(response).await), whom, retry_after }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The first error in the form of the distribution specification, else nothing: an HTML page helps nobody.
fn said(body: &[u8]) -> String {
    let Ok(Errors { errors }) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let Some(OneError { code, message }) = errors.into_iter().next() else { return String::new() };
    let words: Vec<_> = [code, message].into_iter().filter(|words| !words.is_empty()).collect();
    let words = words.join(": ");
    let shown: String = words.chars().take(WORDS).flat_map(char::escape_debug).collect();
    if words.chars().nth(WORDS).is_some() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_own_words_are_kept_and_cut_and_escaped() {
        let body = br#"{"errors":[{"code":"DENIED","message":"not for you\u001b[31m","detail":[1]},{"code":"X"}]}"#;
        assert_eq!(said(body), "DENIED: not for you\\u{1b}[31m");
        let long = format!("{{\"errors\":[{{\"message\":\"{}\"}}]}}", "x".repeat(1000));
        assert_eq!(said(long.as_bytes()).chars().count(), WORDS + 1);
        for body in ["", "<html>", "{}", "{\"errors\":[]}", "{\"errors\":[{}]}", "[]"] {
            assert_eq!(said(body.as_bytes()), "", "{body}");
        }
    }
}
