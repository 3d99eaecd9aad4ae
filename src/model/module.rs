//! Where a module's bytes come from and what is known of them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use super::EnvoyVersion;

/// A sha256, in lower-case hex where it is printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// The text is not 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 characters of 0-9 and a-f")]
pub struct InvalidDigest;

impl Digest {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(content).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_lower_hex) {
            return Err(InvalidDigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidDigest)?;
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

/// `spec.url`, taken apart. Printed without the secrets that a URL may hold.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ModuleLocation {
    /// `oci://…`, or no scheme: the reference without its scheme.
    Oci(String),
    /// `http://…` or `https://…`, whole.
    Http(String),
    /// `file://…`: the path. Whose disk it is, `--module-files` decides.
    File(PathBuf),
}

impl ModuleLocation {
    /// All of it, secrets too: what tells two locations apart. Not for logs or status.
    pub fn whole(&self) -> String {
        match self {
            Self::Oci(reference) => format!("oci://{reference}"),
            Self::Http(url) => url.clone(),
            Self::File(path) => format!("file://{}", path.display()),
        }
    }
}

impl fmt::Display for ModuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(&shown_url(url)),
            Self::Oci(_) | Self::File(_) => f.write_str(&self.whole()),
        }
    }
}

impl fmt::Debug for ModuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL as logs and status may show it: without user, password, query and fragment, which may hold secrets.
pub fn shown_url(url: &str) -> String {
    const REDACTED: &str = "redacted";
    let Ok(mut parsed) = Url::parse(url) else { return REDACTED.to_owned() };
    let has_user = !parsed.username().is_empty() || parsed.password().is_some();
    if !has_user && parsed.query().is_none() && parsed.fragment().is_none() {
        return url.to_owned();
    }
    if has_user {
        // A token may stand in either place. Only a URL without host refuses this, and it has neither.
        let _no_host = parsed.set_password(None).and_then(|()| parsed.set_username(REDACTED));
    }
    if parsed.query().is_some() {
        parsed.set_query(Some(REDACTED));
    }
    parsed.set_fragment(None);
    parsed.into()
}

/// `spec.imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Always for an image tagged `latest` or not at all, else IfNotPresent.
    #[default]
    Unspecified,
    IfNotPresent,
    Always,
}

impl PullPolicy {
    /// As in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED_POLICY",
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
        }
    }
}

/// A module as a plugin asks for it. Equal references share one fetch and one state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleRef {
    pub location: ModuleLocation,
    /// `spec.sha256`: what the bytes must be.
    pub sha256: Option<Digest>,
    pub pull_policy: PullPolicy,
    /// Namespace and name of the pull secret. Part of the identity: credentials are never shared between secrets.
    pub pull_secret: Option<(String, String)>,
}

/// A module that was fetched, verified and inspected: fit for some Envoy at least.
pub struct Module {
    pub digest: Digest,
    /// The one copy in memory; resources hold slices of it.
    pub bytes: Bytes,
    /// Envoy releases that would refuse it, oldest first, each with the reason in words.
    pub refusals: Vec<(EnvoyVersion, String)>,
    /// What its image wants as the root id of plugins that name none.
    pub root_id: Option<String>,
}

impl Module {
    /// Why an Envoy of that version would refuse this module. Releases between two known ones are judged as the
    /// older of them; an unknown version as the newest.
    pub fn refusal_by(&self, version: Option<EnvoyVersion>, known: &[EnvoyVersion]) -> Option<&str> {
        let release = match version {
            Some(version) => known.iter().rev().find(|release| **release <= version).or_else(|| known.first())?,
            None => known.last()?,
        };
        self.refusals.iter().find(|(refusing, _)| refusing == release).map(|(_, reason)| reason.as_str())
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({:?}, {} bytes)", self.digest, self.bytes.len())
    }
}

/// What a plugin runs once its module is ready.
#[derive(Clone, Debug)]
pub enum Code {
    /// Bytes that wasmplane holds and delivers.
    Module(Arc<Module>),
    /// A path on the proxy's own disk, passed through unchecked.
    OnProxy(PathBuf),
    /// Nothing beside the specification: a script.
    InSpecification,
}

/// How far a module has come.
#[derive(Clone, Debug)]
pub enum ModuleState {
    /// Being fetched for the first time.
    Pending,
    Ready(Code),
    /// Not to be had for now, and why. Fetching is tried again where that can help.
    Failed {
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_and_the_token_of_a_url_are_seen_in_no_status_and_no_log() {
        for (url, wanted) in [
            ("http://modules.test/a.wasm", "http://modules.test/a.wasm"),
            ("https://me:pass@modules.test/a.wasm", "https://redacted@modules.test/a.wasm"),
            ("https://token@modules.test/a.wasm", "https://redacted@modules.test/a.wasm"),
            ("https://modules.test/a.wasm?sig=token#secret", "https://modules.test/a.wasm?redacted"),
        ] {
            let location = ModuleLocation::Http(url.to_owned());
            assert_eq!((location.to_string().as_str(), format!("{location:?}").as_str()), (wanted, wanted));
            assert_eq!(location.whole(), url);
        }
    }
}
