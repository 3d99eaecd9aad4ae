//! Downloads blobs: hashed while they come, no byte more than announced, and taken up again where a body broke off.

use http::header::{CONTENT_RANGE, HeaderMap, RANGE};
use http::{Method, StatusCode};

use super::error::PullError;
use super::session::{Ask, Session};
use crate::modules::image::Descriptor;
use crate::modules::spool::{Spool, Spooled};
use crate::modules::transport::{Body, cause};

/// How often one blob is taken up again. Only after an attempt that brought something.
const RESUMPTIONS: u32 = 8;

impl Session<'_> {
    /// Into `spool`, which is empty. The blob's size was checked against our limits.
    pub async fn download(
        &mut self,
        blob: &Descriptor,
        mut spool: Spool,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Spooled, PullError> {
        let what = format!("blob sha256:{}", blob.digest);
        let mut resumptions = 0;
        loop {
            let before = spool.len();
            let Err(broken) = self.download_rest(&what, blob, &mut spool, progress).await? else { break };
            resumptions += 1;
            if spool.len() <= before || resumptions > RESUMPTIONS {
                return Err(PullError::Transport { what, cause: broken });
            }
            tracing::debug!(what, cause = broken, have = spool.len(), "download broke off and is taken up again");
        }
        let spooled = spool.finish();
        if spooled.digest() != blob.digest {
            let (expected, actual) = (blob.digest, spooled.digest());
            return Err(PullError::Digest { what, source_of_expected: "the manifest", expected, actual });
        }
        Ok(spooled)
    }

    /// `Ok(Err(…))`: the body broke off, and what came is in the spool.
    async fn download_rest(
        &mut self,
        what: &str,
        blob: &Descriptor,
        spool: &mut Spool,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Result<(), String>, PullError> {
        let from = spool.len();
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = format!("bytes={from}-").parse().expect("a number is header text");
            headers.insert(RANGE, range);
        }
        let url = self.url(&format!("blobs/sha256:{}", blob.digest));
        let ask = Ask { method: Method::GET, url, headers, body: Body::Empty, what };
        let statuses = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let mut response = self.expect(&ask, if from > 0 { &statuses } else { &statuses[..1] }).await?;
        if response.status() == StatusCode::OK {
            spool.restart().await.map_err(|failed| failed.about(what))?;
        } else if !continues_at(response.headers(), from) {
            let reason = "the registry sent another part than the one asked for".to_owned();
            return Err(PullError::Protocol { what: what.to_owned(), reason });
        }
        let expected = blob.size - spool.len();
        if let Some(length) = response.content_length().filter(|length| *length != expected) {
            let actual = spool.len() + length;
            return Err(PullError::Size { what: what.to_owned(), announced: blob.size, actual });
        }
        while spool.len() < blob.size {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let actual = spool.len() + chunk.len() as u64;
                    if actual > blob.size {
                        return Err(PullError::Size { what: what.to_owned(), announced: blob.size, actual });
                    }
                    spool.write(&chunk).await.map_err(|failed| failed.about(what))?;
                    progress(chunk.len() as u64);
                }
                Ok(None) => {
                    let actual = spool.len();
                    return Err(PullError::Size { what: what.to_owned(), announced: blob.size, actual });
                }
                Err(error) => return Ok(Err(cause(error))),
            }
        }
        Ok(Ok(()))
    }
}

/// `bytes 100-199/200`
fn continues_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(from)
}
