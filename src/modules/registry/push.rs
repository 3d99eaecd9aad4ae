//! The way in: blobs and manifests put into a registry, for `wasmplane push`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use url::Url;

use super::error::PullError;
use super::session::{Ask, Session};
use crate::model::Digest;
use crate::modules::transport::Body;

impl Session<'_> {
    /// Puts a blob there, unless the registry has it already. `progress` is told how many bytes went off.
    pub async fn upload(&mut self, blob: Bytes, progress: Arc<dyn Fn(u64) + Send + Sync>) -> Result<Digest, PullError> {
        let digest = Digest::of(&blob);
        let what = format!("blob sha256:{digest}");
        let headers = HeaderMap::new();
        let url = self.url(&format!("blobs/sha256:{digest}"));
        let ask = Ask { method: Method::HEAD, url, headers: headers.clone(), body: Body::Empty, what: &what };
        if self.send(&ask).await?.status() == StatusCode::OK {
            progress(blob.len() as u64);
            return Ok(digest);
        }
        let ask =
            Ask { method: Method::POST, url: self.url("blobs/uploads/"), headers, body: Body::Empty, what: &what };
        let begun = self.expect(&ask, &[StatusCode::ACCEPTED]).await?;
        let url = upload_url(&what, &begun, &digest)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        let body = Body::Watched(blob, progress);
        let ask = Ask { method: Method::PUT, url, headers, body, what: &what };
        self.expect(&ask, &[StatusCode::CREATED]).await?;
        Ok(digest)
    }

    /// Puts the manifest under the reference's tag, or under its digest if it names one.
    pub async fn put_manifest(&mut self, manifest: Bytes, media_type: &'static str) -> Result<Digest, PullError> {
        let (digest, version) = (Digest::of(&manifest), self.reference.version());
        let what = format!("manifest {version}");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        let url = self.url(&format!("manifests/{version}"));
        let ask = Ask { method: Method::PUT, url, headers, body: Body::Whole(manifest), what: &what };
        self.expect(&ask, &[StatusCode::CREATED]).await?;
        Ok(digest)
    }
}

/// Where the registry wants the blob, told which one it is.
fn upload_url(what: &str, begun: &reqwest::Response, digest: &Digest) -> Result<Url, PullError> {
    let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = location.and_then(|location| begun.url().join(location).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let no_place =
        || PullError::Protocol { what: what.to_owned(), reason: "the registry names no place for it".to_owned() };
    let mut url = url.ok_or_else(no_place)?;
    url.query_pairs_mut().append_pair("digest", &format!("sha256:{digest}"));
    Ok(url)
}
