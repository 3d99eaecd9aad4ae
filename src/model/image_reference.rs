//! `[registry/]repository[:tag][@sha256:digest]`, taken apart as docker and Istio do.
//!
//! Without a registry it is Docker Hub's, where a single name means `library/NAME`. Without tag and digest it is
//! `latest`. With both, the digest decides and the tag is a comment.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::model::{DOCKER_HUB, Digest, HostPort, InvalidDigest};

const LATEST: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    pub registry: HostPort,
    pub repository: String,
    tag: Option<String>,
    pub digest: Option<Digest>,
}

/// What is wrong with a reference. Nothing but another reference helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    #[error("\"{host}\" is no registry, such as registry.example.com or 10.0.0.1:5000")]
    Registry { host: String },
    #[error("repository \"{repository}\": parts between slashes are made of a-z, 0-9, and single . _ - within")]
    Repository { repository: String },
    #[error("tag \"{tag}\": at most 128 of a-z, A-Z, 0-9, _ . -, and neither . nor - at first")]
    Tag { tag: String },
    #[error("digest \"{digest}\": only sha256: with 64 characters of 0-9 and a-f")]
    Digest { digest: String },
}

impl ImageReference {
    /// What is asked for: the digest, else the tag.
    pub fn version(&self) -> String {
        match &self.digest {
            Some(digest) => format!("sha256:{digest}"),
            None => self.tag().to_owned(),
        }
    }

    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(LATEST)
    }

    /// Whether it can come to mean another image from one day to the next without a word: `latest`, said or not.
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag() == LATEST
    }

    /// `registry/repository`: whose rights decide.
    pub fn home(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The registry as credentials name it.
    pub fn registry_name(&self) -> String {
        self.registry.to_string()
    }

    /// The URL of something of this repository: `manifests/v1`, `blobs/sha256:…`.
    pub fn url(&self, is_plain: bool, rest: &str) -> Url {
        let scheme = if is_plain { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{rest}", self.registry, self.repository);
        Url::parse(&text).expect("host, repository and version were checked")
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (host, path) = match name.split_once('/') {
            // Docker's rule for what is a host.
            Some((host, path)) if host.contains(['.', ':', '[']) || host == "localhost" => (host, path),
            _ => (DOCKER_HUB, name),
        };
        let host = if matches!(host, "docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host };
        let registry = host.parse().map_err(|_| InvalidReference::Registry { host: cut(host) })?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(parse_tag(tag)?)),
            None => (path, None),
        };
        let is_hub = host == DOCKER_HUB;
        let repository =
            if is_hub && !repository.contains('/') { format!("library/{repository}") } else { repository.to_owned() };
        if !is_repository(&repository) {
            return Err(InvalidReference::Repository { repository: cut(&repository) });
        }
        Ok(Self { registry, repository, tag, digest })
    }
}

fn parse_digest(text: &str) -> Result<Digest, InvalidReference> {
    let hex = text.strip_prefix("sha256:").ok_or(InvalidDigest);
    hex.and_then(str::parse).map_err(|_| InvalidReference::Digest { digest: cut(text) })
}

fn parse_tag(text: &str) -> Result<String, InvalidReference> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_tag = text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    if is_tag { Ok(text.to_owned()) } else { Err(InvalidReference::Tag { tag: cut(text) }) }
}

/// The distribution specification's `name`: in particular no `..` and nothing that a URL would read otherwise.
fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        let is_sound = |byte: u8| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-');
        bytes.first().is_some_and(|byte| is_plain(*byte))
            && bytes.last().is_some_and(|byte| is_plain(*byte))
            && bytes.iter().all(|byte| is_sound(*byte))
            && !part.contains("..")
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_part)
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_REPOSITORY).collect()
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.home())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ImageReference {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn url(text: &str) -> String {
        let reference = of(text);
        reference.url(false, &format!("manifests/{}", reference.version())).to_string()
    }

    #[test]
    fn the_parts_are_those_that_docker_sees() {
        let digest = "a".repeat(64);
        assert_eq!(url("r.test/a/b:v1"), "https://r.test/v2/a/b/manifests/v1");
        assert_eq!(url("r.test:5000/a"), "https://r.test:5000/v2/a/manifests/latest");
        assert_eq!(url("[::1]:5000/a"), "https://[::1]:5000/v2/a/manifests/latest");
        assert_eq!(url("localhost/a"), "https://localhost/v2/a/manifests/latest");
        assert_eq!(
            url(&format!("r.test/a:v1@sha256:{digest}")),
            format!("https://r.test/v2/a/manifests/sha256:{digest}")
        );
    }

    #[test]
    fn without_a_registry_it_is_docker_hubs() {
        for text in ["hello", "docker.io/hello", "index.docker.io/library/hello", "library/hello:latest"] {
            assert_eq!(url(text), "https://index.docker.io/v2/library/hello/manifests/latest", "{text}");
        }
        assert_eq!(url("me/hello:v2"), "https://index.docker.io/v2/me/hello/manifests/v2");
    }

    #[test]
    fn only_latest_is_latest() {
        let digest = "a".repeat(64);
        assert!(of("r.test/a").is_latest() && of("r.test/a:latest").is_latest());
        assert!(!of("r.test/a:v1").is_latest() && !of(&format!("r.test/a@sha256:{digest}")).is_latest());
    }

    #[test]
    fn what_is_no_reference_is_refused_by_the_part_that_is_wrong() {
        let error = |text: &str| text.parse::<ImageReference>().unwrap_err().to_string();
        for text in ["r.test/UPPER", "r.test/a/../b", "r.test/a//b", "r.test/-a", "r.test/a%2e", "", "r.test/", "a b"] {
            assert!(error(text).starts_with("repository \""), "{text}: {}", error(text));
        }
        for text in ["r.test/a:", "r.test/a:.v", "r.test/a:v/1x", "r.test/a:ü"] {
            assert!(
                error(text).starts_with("tag \"") || error(text).starts_with("repository"),
                "{text}: {}",
                error(text)
            );
        }
        assert!(error("r.test/a@sha256:1").starts_with("digest \"sha256:1\""));
        assert!(error("r.test/a@md5:1").starts_with("digest \"md5:1\""));
        assert!(error("r.test:99999/a").starts_with("\"r.test:99999\" is no registry"));
    }
}
