//! From a reference to the manifest of one image, every byte of it checked against its digest.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::error::PullError;
use super::session::{Ask, Session};
use crate::model::Digest;
use crate::modules::image::media_types::DOCUMENTS;
use crate::modules::image::{DOCUMENT_LIMIT, Descriptor, Document, Manifest, parse};
use crate::modules::memory::Given;
use crate::modules::transport::Body;

const DIGEST_HEADER: &str = "docker-content-digest";

/// An image that a reference stands for at this moment.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Of what the reference names: an image, or an index of images.
    pub digest: Digest,
    /// Of the image's own manifest: the same, or the one chosen from an index.
    pub image: Digest,
    pub manifest: Manifest,
}

impl Resolved {
    /// What is to be remembered once the module in it is known, and the root id that the image names.
    pub fn given(&self, module: Digest, root_id: Option<String>, warnings: Vec<String>) -> Given {
        let chosen = Some(self.image).filter(|image| *image != self.digest);
        Given { module, served: Some(self.digest), chosen, root_id, warnings }
    }
}

impl Session<'_> {
    pub async fn resolve(&mut self) -> Result<Resolved, PullError> {
        let pin = self.reference.digest.map(|digest| (digest, "the reference"));
        let (digest, document) = self.document(&self.reference.version(), pin, None).await?;
        match document {
            Document::Image(manifest) => Ok(Resolved { digest, image: digest, manifest }),
            Document::Index(index) => {
                let chosen = index.choose()?.clone();
                let pin = Some((chosen.digest, "the index"));
                match self.document(&format!("sha256:{}", chosen.digest), pin, Some(&chosen)).await? {
                    (image, Document::Image(manifest)) => Ok(Resolved { digest, image, manifest }),
                    (_, Document::Index(_)) => Err(PullError::Protocol {
                        what: format!("manifest sha256:{}", chosen.digest),
                        reason: "an index within an index: push the image again".to_owned(),
                    }),
                }
            }
        }
    }

    /// Only which digest the reference has now, without fetching it where the registry can say so.
    pub async fn current_digest(&mut self) -> Result<Digest, PullError> {
        let version = self.reference.version();
        let what = format!("manifest {version}");
        let mut ask = self.ask_for_manifest(&version, &what);
        ask.method = Method::HEAD;
        let response = self.send(&ask).await?;
        match (response.status(), announced_digest(response.headers())) {
            (StatusCode::OK, Some(digest)) => Ok(digest),
            // Some registries know no HEAD, and HEAD never says why.
            _ => Ok(self.document(&version, None, None).await?.0),
        }
    }

    fn ask_for_manifest<'w>(&self, version: &str, what: &'w str) -> Ask<'w> {
        let accept = HeaderValue::from_str(&DOCUMENTS.join(", ")).expect("media types are header text");
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        Ask { method: Method::GET, url: self.url(&format!("manifests/{version}")), headers, body: Body::Empty, what }
    }

    async fn document(
        &mut self,
        version: &str,
        pin: Option<(Digest, &'static str)>,
        announced: Option<&Descriptor>,
    ) -> Result<(Digest, Document), PullError> {
        let what = format!("manifest {version}");
        let ask = self.ask_for_manifest(version, &what);
        let response = self.expect(&ask, &[StatusCode::OK]).await?;
        let headers = response.headers().clone();
        let body = whole_document(&what, response).await?;
        let actual = Digest::of(&body);
        let expected = pin.or_else(|| Some((announced_digest(&headers)?, "its header")));
        if let Some((expected, source_of_expected)) = expected.filter(|(expected, _)| *expected != actual) {
            return Err(PullError::Digest { what, source_of_expected, expected, actual });
        }
        if let Some(announced) = announced.map(|it| it.size).filter(|size| *size != body.len() as u64) {
            return Err(PullError::Size { what, announced, actual: body.len() as u64 });
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Ok((actual, parse(&body, content_type)?))
    }
}

/// A digest of another kind says nothing to us.
fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST_HEADER)?.to_str().ok()?.strip_prefix("sha256:")?.parse().ok()
}

async fn whole_document(what: &str, mut response: reqwest::Response) -> Result<Bytes, PullError> {
    let too_large = || PullError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT as u64 };
    if response.content_length().is_some_and(|length| length > DOCUMENT_LIMIT as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| PullError::Transport {
            what: what.to_owned(),
            cause: crate::modules::transport::cause(error),
        })?;
        let Some(chunk) = chunk else { return Ok(body.into()) };
        body.extend_from_slice(&chunk);
        if body.len() > DOCUMENT_LIMIT {
            return Err(too_large());
        }
    }
}
