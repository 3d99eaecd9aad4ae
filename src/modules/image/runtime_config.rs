//! `runtime-config.json`: what a WebAssemblyHub image says of the module in it. Pure.
//!
//! Nothing in it is needed to run the module: what cannot be read is a warning, never a reason to refuse the image.

use serde::Deserialize;

use super::error::{ImageError, shown};
use super::limits::bytes;

/// Which plugins the module holds, and for which host it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `envoy_proxy`, or whatever else somebody wrote.
    pub runtime: Option<String>,
    /// Commits or releases of a host; not the ABI marker of proxy-wasm, and a hint only.
    pub abi_versions: Vec<String>,
    /// By these the module tells its plugins apart. `wasme` takes the first one where its user names none.
    pub root_ids: Vec<String>,
}

/// Bytes of a runtime-config.json.
pub const RUNTIME_CONFIG_LIMIT: u64 = 64 << 10;

/// Texts in one list.
const MAX_TEXTS: usize = 100;
/// Bytes of one text: as many as `pluginName` may have.
const MAX_TEXT: usize = 256;

impl RuntimeConfig {
    pub fn parse(text: &[u8]) -> Result<Self, ImageError> {
        if text.len() as u64 > RUNTIME_CONFIG_LIMIT {
            return Err(too_large(text.len() as u64));
        }
        let raw: Raw = serde_json::from_slice(text).map_err(|error| broken(shown(error.to_string().as_bytes())))?;
        for (field, texts) in [("abiVersions", &raw.abi_versions), ("config.rootIds", &raw.config.root_ids)] {
            check(field, texts)?;
        }
        if let Some(runtime) = &raw.runtime {
            check("type", std::slice::from_ref(runtime))?;
        }
        Ok(Self { runtime: raw.runtime, abi_versions: raw.abi_versions, root_ids: raw.config.root_ids })
    }

    /// For a plugin that names none.
    pub fn root_id(&self) -> Option<&str> {
        self.root_ids.first().map(String::as_str).filter(|root_id| !root_id.is_empty())
    }
}

/// It is not even read.
pub fn too_large(size: u64) -> ImageError {
    let what = format!("runtime-config.json has {size} bytes");
    ImageError::TooLarge { what, limit: bytes(RUNTIME_CONFIG_LIMIT) }
}

fn broken(reason: String) -> ImageError {
    ImageError::Broken { what: "runtime-config.json".to_owned(), reason }
}

fn check(field: &str, texts: &[String]) -> Result<(), ImageError> {
    if texts.len() > MAX_TEXTS {
        let what = format!("runtime-config.json: {field} has {} entries", texts.len());
        return Err(ImageError::TooLarge { what, limit: MAX_TEXTS.to_string() });
    }
    let is_odd = |text: &&String| text.len() > MAX_TEXT || text.chars().any(char::is_control);
    match texts.iter().find(is_odd) {
        Some(odd) => {
            let odd = shown(odd.as_bytes());
            Err(broken(format!("{field} holds \"{odd}\": text of at most {MAX_TEXT} bytes is expected, in one line")))
        }
        None => Ok(()),
    }
}

/// Each spelling that is about, but not two of them at once.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    runtime: Option<String>,
    #[serde(default, rename = "abiVersions", alias = "abi_versions", alias = "abi_version")]
    abi_versions: Vec<String>,
    #[serde(default)]
    config: RawConfig,
}

#[derive(Default, Deserialize)]
struct RawConfig {
    #[serde(default, rename = "rootIds", alias = "root_ids")]
    root_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RuntimeConfig, String> {
        RuntimeConfig::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_spelling_of_a_field_is_read() {
        let expected = RuntimeConfig {
            runtime: Some("envoy_proxy".to_owned()),
            abi_versions: vec!["v0-4689a30309abf31aee9ae36e73d34b1bb182685f".to_owned(), "v0.2.1".to_owned()],
            root_ids: vec!["add_header".to_owned(), "other".to_owned()],
        };
        for (abi_versions, root_ids) in
            [("abiVersions", "rootIds"), ("abi_versions", "root_ids"), ("abi_version", "rootIds")]
        {
            let text = format!(
                r#"{{"type": "envoy_proxy", "{abi_versions}": ["v0-4689a30309abf31aee9ae36e73d34b1bb182685f", "v0.2.1"],
                    "config": {{"{root_ids}": ["add_header", "other"], "more": {{}}}}, "more": [1]}}"#
            );
            assert_eq!(read(&text), Ok(expected.clone()));
        }
        assert_eq!(expected.root_id(), Some("add_header"));
        assert_eq!(read("{}"), Ok(RuntimeConfig::default()));
        for no_default in [r#"{"config": {"rootIds": []}}"#, r#"{"config": {"rootIds": ["", "a"]}}"#] {
            assert_eq!(read(no_default).unwrap().root_id(), None, "{no_default}");
        }
    }

    #[test]
    fn what_is_none_is_named_and_shown_harmlessly() {
        let many = format!(r#"{{"abiVersions": [{}"x"]}}"#, r#""x","#.repeat(MAX_TEXTS));
        let long = format!(r#"{{"config": {{"rootIds": ["{}"]}}}}"#, "x".repeat(MAX_TEXT + 1));
        let huge = format!(r#"{{"a": "{}"}}"#, "x".repeat(RUNTIME_CONFIG_LIMIT as usize));
        let cases = [
            ("", "runtime-config.json: EOF while parsing a value"),
            ("[]", "runtime-config.json: invalid length 0"),
            (r#"{"config": {"rootIds": "a"}}"#, "runtime-config.json: invalid type: string \"a\", expected a sequence"),
            (r#"{"config": {"rootIds": ["a"], "root_ids": []}}"#, "runtime-config.json: duplicate field `rootIds`"),
            (
                r#"{"config": {"rootIds": ["a\u001b[31m"]}}"#,
                "runtime-config.json: config.rootIds holds \"a\\u{1b}[31m\": text",
            ),
            (r#"{"type": "a\n"}"#, "runtime-config.json: type holds \"a\\n\": text of at most 256 bytes"),
            (&long, "runtime-config.json: config.rootIds holds \"xxx"),
            (&many, "runtime-config.json: abiVersions has 101 entries: more than the limit of 100"),
            (&huge, "runtime-config.json has 65545 bytes: more than the limit of 65536 bytes"),
            (&"[".repeat(60_000), "runtime-config.json: "),
        ];
        for (text, expected) in cases {
            let said = read(text).unwrap_err();
            assert!(said.starts_with(expected) && said.len() < 400, "{said}");
        }
    }
}
