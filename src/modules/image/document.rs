//! What a registry answers for a reference: an image manifest, or an index of several. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{ImageError, shown};
use super::media_types::{DOCKER_LIST, DOCKER_MANIFEST, DOCUMENTS, OCI_INDEX, OCI_MANIFEST, SCHEMA_1, essence};
use crate::model::Digest;

/// Bytes of one manifest or index: registries take no larger ones either.
pub const DOCUMENT_LIMIT: usize = 4 << 20;

/// What a reference stands for.
#[allow(clippy::large_enum_variant, reason = "one at a time is looked at")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Index),
    Image(Manifest),
}

/// One image per platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub(super) entries: Vec<Descriptor>,
}

/// One image: a config and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Of the document itself; `None` where neither it nor the registry says so.
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

/// Something in the registry, by its digest. Its `urls` and `data` are passed over: what is fetched is fetched from the
/// registry that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes, as announced.
    pub size: u64,
    pub platform: Option<Platform>,
    pub annotations: BTreeMap<String, String>,
}

/// What an image of an index is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// Reads what a registry answered.
///
/// `content_type`: the HTTP header, compared with what the document says of itself.
pub fn parse(document: &[u8], content_type: Option<&str>) -> Result<Document, ImageError> {
    if document.len() > DOCUMENT_LIMIT {
        let what = format!("the manifest has {} bytes", document.len());
        return Err(ImageError::TooLarge { what, limit: format!("{DOCUMENT_LIMIT} bytes") });
    }
    let header = content_type.map(essence);
    if header.as_deref().is_some_and(|header| SCHEMA_1.contains(&header)) {
        return Err(ImageError::SchemaOne);
    }
    let raw: RawDocument = serde_json::from_slice(document).map_err(|error| not_json(document, &error))?;
    if raw.schema_version == Some(1) || raw.media_type.as_deref().is_some_and(|stated| SCHEMA_1.contains(&stated)) {
        return Err(ImageError::SchemaOne);
    }
    // Registries also serve manifests as application/json or text/plain, which says nothing.
    let header = header.filter(|header| DOCUMENTS.contains(&header.as_str()));
    let stated = match (raw.media_type.clone(), header) {
        (Some(document), Some(header)) if document != header => {
            return Err(ImageError::TwoTypes {
                header: shown(header.as_bytes()),
                document: shown(document.as_bytes()),
            });
        }
        (document, header) => document.or(header),
    };
    raw.into_document(stated)
}

fn not_json(document: &[u8], error: &serde_json::Error) -> ImageError {
    let begins = shown(&document[..document.len().min(40)]);
    ImageError::NotAManifest { reason: format!("{error} (it begins with \"{begins}\")") }
}

fn not_a_manifest(reason: impl Into<String>) -> ImageError {
    ImageError::NotAManifest { reason: reason.into() }
}

/// Indexes and manifests in one, so that a document that is both is noticed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    /// Of schema 1.
    fs_layers: Option<IgnoredAny>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl RawDocument {
    fn into_document(self, stated: Option<String>) -> Result<Document, ImageError> {
        let is_image = self.config.is_some() || self.layers.is_some();
        // Two readers of such a document would see two different things.
        if self.manifests.is_some() && is_image {
            return Err(not_a_manifest("it is both an image and an index of images"));
        }
        match stated.as_deref() {
            Some(OCI_INDEX | DOCKER_LIST) => self.into_index(),
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => self.into_image(stated),
            Some(other) => {
                let right = DOCUMENTS.join(", ");
                Err(not_a_manifest(format!("its mediaType is {}; right would be {right}", shown(other.as_bytes()))))
            }
            None if self.manifests.is_some() => self.into_index(),
            None if is_image => self.into_image(stated),
            None if self.fs_layers.is_some() => Err(ImageError::SchemaOne),
            None => Err(not_a_manifest("it has neither layers nor manifests")),
        }
    }

    fn into_index(self) -> Result<Document, ImageError> {
        let entries = self.manifests.ok_or_else(|| not_a_manifest("an index without manifests"))?;
        Ok(Document::Index(Index { entries: descriptors(entries)? }))
    }

    fn into_image(self, media_type: Option<String>) -> Result<Document, ImageError> {
        let config = self.config.ok_or_else(|| not_a_manifest("an image without config"))?;
        let layers = self.layers.ok_or_else(|| not_a_manifest("an image without layers"))?;
        Ok(Document::Image(Manifest {
            media_type,
            artifact_type: self.artifact_type,
            config: config.try_into()?,
            layers: descriptors(layers)?,
            annotations: self.annotations.unwrap_or_default(),
        }))
    }
}

fn descriptors(raw: Vec<RawDescriptor>) -> Result<Vec<Descriptor>, ImageError> {
    raw.into_iter().map(Descriptor::try_from).collect()
}

impl TryFrom<RawDescriptor> for Descriptor {
    type Error = ImageError;

    fn try_from(raw: RawDescriptor) -> Result<Self, ImageError> {
        let digest = raw.digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
        let digest = digest.ok_or_else(|| {
            let digest = shown(raw.digest.as_bytes());
            not_a_manifest(format!("digest \"{digest}\" is not sha256: and 64 characters of 0-9 and a-f"))
        })?;
        Ok(Self {
            media_type: raw.media_type,
            digest,
            size: raw.size,
            platform: raw.platform,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", "a".repeat(64)), "size": 7})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [descriptor("l")]})
    }

    fn read(document: &Value, content_type: Option<&str>) -> Result<Document, ImageError> {
        parse(document.to_string().as_bytes(), content_type)
    }

    fn error(document: &Value, content_type: Option<&str>) -> String {
        read(document, content_type).unwrap_err().to_string()
    }

    fn with(mut document: Value, key: &str, value: Value) -> Value {
        document[key] = value;
        document
    }

    #[test]
    fn what_a_document_is_it_says_itself_or_the_header_or_its_fields() {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST)]});
        for (document, content_type) in [
            (image(), None),
            (image(), Some("application/json; charset=utf-8")),
            (image(), Some("Application/vnd.oci.image.manifest.v1+json; charset=utf-8")),
            (with(image(), "mediaType", json!(DOCKER_MANIFEST)), Some(DOCKER_MANIFEST)),
            (with(image(), "mediaType", json!(OCI_MANIFEST)), Some("text/plain")),
        ] {
            assert!(matches!(read(&document, content_type), Ok(Document::Image(_))), "{document}");
        }
        for (document, content_type) in [
            (index.clone(), None),
            (index.clone(), Some(DOCKER_LIST)),
            (with(index, "mediaType", json!(OCI_INDEX)), Some(OCI_INDEX)),
        ] {
            assert!(matches!(read(&document, content_type), Ok(Document::Index(_))), "{document}");
        }
    }

    #[test]
    fn a_descriptor_keeps_what_counts_and_nothing_of_urls() {
        let layer = json!({"mediaType": "l", "digest": format!("sha256:{}", "a".repeat(64)), "size": 7,
            "urls": ["http://169.254.169.254/"], "data": "AAAA", "annotations": {"k": "v"}});
        let document = with(image(), "layers", json!([layer]));
        let Ok(Document::Image(manifest)) = read(&document, None) else { panic!() };
        let expected = Descriptor {
            media_type: "l".to_owned(),
            digest: "a".repeat(64).parse().unwrap(),
            size: 7,
            platform: None,
            annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        };
        assert_eq!(manifest.layers, [expected]);
    }

    #[test]
    fn what_two_readers_would_read_differently_is_refused() {
        let both = with(image(), "manifests", json!([]));
        assert_eq!(error(&both, None), "not an image manifest: it is both an image and an index of images");
        let told_otherwise = with(image(), "mediaType", json!(OCI_MANIFEST));
        assert_eq!(
            error(&told_otherwise, Some(DOCKER_MANIFEST)),
            format!(
                "the registry says Content-Type {DOCKER_MANIFEST}, and the document mediaType {OCI_MANIFEST}: push the \
                 image again"
            )
        );
        let twice = br#"{"schemaVersion":2,"layers":[],"layers":[]}"#;
        assert!(parse(twice, None).unwrap_err().to_string().contains("duplicate field `layers`"));
    }

    #[test]
    fn schema_1_is_refused_with_advice() {
        let signed = json!({"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []});
        for (document, content_type) in [
            (signed.clone(), None),
            (signed, Some(SCHEMA_1[1])),
            (json!({"fsLayers": []}), None),
            (json!({"mediaType": SCHEMA_1[0]}), None),
        ] {
            assert_eq!(read(&document, content_type), Err(ImageError::SchemaOne));
        }
    }

    #[test]
    fn what_is_no_manifest_is_named() {
        let html = parse(b"<html>Sign in</html>", Some("text/html")).unwrap_err().to_string();
        assert_eq!(
            html,
            "not an image manifest: expected value at line 1 column 1 (it begins with \"<html>Sign in</html>\")"
        );
        let cases = [
            (json!({"schemaVersion": 2}), "it has neither layers nor manifests"),
            (json!({"mediaType": OCI_INDEX}), "an index without manifests"),
            (json!({"mediaType": OCI_MANIFEST, "config": descriptor("c")}), "an image without layers"),
            (json!({"layers": []}), "an image without config"),
            (with(image(), "mediaType", json!("application/x")), "its mediaType is application/x; right would be"),
            (
                with(image(), "config", json!({"mediaType": "c", "digest": "sha512:ab", "size": 1})),
                "digest \"sha512:ab\" is not sha256:",
            ),
            (
                with(image(), "config", json!({"mediaType": "c", "digest": "sha256:ab", "size": -1})),
                "invalid value: integer `-1`, expected u64",
            ),
            (with(image(), "config", json!({"mediaType": "c", "size": 1})), "missing field `digest`"),
        ];
        for (document, expected) in cases {
            let error = error(&document, None);
            assert!(error.starts_with(&format!("not an image manifest: {expected}")), "{error}");
        }
        let huge = vec![b' '; DOCUMENT_LIMIT + 1];
        assert!(matches!(parse(&huge, None), Err(ImageError::TooLarge { .. })));
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(deep.as_bytes(), None), Err(ImageError::NotAManifest { .. })));
    }
}
