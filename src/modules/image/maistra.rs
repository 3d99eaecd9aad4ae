//! Maistra's `manifest.yaml`: what an extension image says of the module in it. Pure.

use serde_json::{Map, Value};

use super::error::{ImageError, shown};
use super::path;
use crate::model::Position;

/// Defaults for a ServiceMeshExtension that leaves them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDefaults {
    pub name: Option<String>,
    pub description: Option<String>,
    pub version: Option<String>,
    /// One of Maistra's six.
    pub phase: Position,
    pub priority: i32,
    /// Path in the image, relative to its root.
    pub module: String,
    /// What is odd about it, and harmless.
    pub warnings: Vec<String>,
}

/// Bytes of a manifest.yaml.
pub const MANIFEST_LIMIT: u64 = 64 << 10;

/// Lists and mappings in one another; a manifest needs one.
const MAX_DEPTH: usize = 8;

const FIELDS: [&str; 7] = ["schemaVersion", "name", "description", "version", "phase", "priority", "module"];

impl ManifestDefaults {
    pub fn parse(text: &[u8]) -> Result<Self, ImageError> {
        let fields = Fields(read(text)?);
        let mut warnings = fields.schema_version()?;
        warnings.extend(fields.unknown());
        Ok(Self {
            name: fields.text("name")?,
            description: fields.text("description")?,
            version: fields.text("version")?,
            phase: fields.phase()?,
            priority: fields.priority()?,
            module: fields.module()?,
            warnings,
        })
    }
}

fn wrong(reason: impl Into<String>) -> ImageError {
    ImageError::Manifest { reason: reason.into() }
}

fn read(text: &[u8]) -> Result<Map<String, Value>, ImageError> {
    let text = str::from_utf8(text).map_err(|_| wrong("is not UTF-8 text"))?;
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("is no mapping of fields such as `module: plugin.wasm`")),
        Err(error) => {
            let reason = error.without_snippet().to_string();
            Err(wrong(format!("broken YAML: {}", shown(reason.lines().next().unwrap_or_default().as_bytes()))))
        }
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    /// `null` counts as absent.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Warns if it is not there.
    fn schema_version(&self) -> Result<Vec<String>, ImageError> {
        match self.get("schemaVersion") {
            Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(Vec::new()),
            Some(Value::String(text)) if text == "1" => Ok(Vec::new()),
            Some(other) => Err(wrong(format!("schemaVersion is {}: only 1 is known", json(other)))),
            None => Ok(vec!["manifest.yaml: schemaVersion is missing and taken as 1".to_owned()]),
        }
    }

    fn unknown(&self) -> Vec<String> {
        let unknown = self.0.keys().filter(|key| !FIELDS.contains(&key.as_str()));
        let mut names: Vec<&str> = unknown.map(String::as_str).collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => Vec::new(),
            names => {
                let names = super::error::listed(names.iter().map(|name| name.as_bytes()));
                vec![format!("manifest.yaml: fields that nobody reads: {names}")]
            }
        }
    }

    /// A version may be written as a number.
    fn text(&self, field: &str) -> Result<Option<String>, ImageError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(wrong(format!("{field} is {}, and should be text", json(other)))),
        }
    }

    fn phase(&self) -> Result<Position, ImageError> {
        const RIGHT: &str = "should be PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats or PostStats";
        match self.get("phase") {
            None => Err(wrong(format!("phase is missing: it {RIGHT}"))),
            Some(Value::String(text)) => Position::parse(text)
                .filter(|position| *position != Position::BeforeRouter)
                .ok_or_else(|| wrong(format!("phase is {}, and {RIGHT}", shown(text.as_bytes())))),
            Some(other) => Err(wrong(format!("phase is {}, and {RIGHT}", json(other)))),
        }
    }

    fn priority(&self) -> Result<i32, ImageError> {
        match self.get("priority") {
            None => Err(wrong("priority is missing: it should be a whole number")),
            Some(value) => value
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(|| wrong(format!("priority is {}, and should be a whole number of 32 bits", json(value)))),
        }
    }

    fn module(&self) -> Result<String, ImageError> {
        match self.get("module") {
            None => Err(wrong("module is missing: it should be the module's path in the image")),
            Some(Value::String(text)) if path::parts(text.as_bytes()).next().is_none() => {
                Err(wrong("module is empty: it should be the module's path in the image"))
            }
            Some(Value::String(text)) if path::parts(text.as_bytes()).any(|part| part == b"..") => {
                Err(wrong(format!("module is {}: a path without .. is needed", shown(text.as_bytes()))))
            }
            Some(Value::String(text)) if path::parts(text.as_bytes()).eq([b"manifest.yaml"]) => {
                Err(wrong("module is manifest.yaml itself: it should be the module's path in the image"))
            }
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => {
                Err(wrong(format!("module is {}, and should be the module's path in the image", json(other))))
            }
        }
    }
}

fn json(value: &Value) -> String {
    shown(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "schemaVersion: 1\nname: my-extension\ndescription: what it does\nversion: 1.0.0\n\
                         phase: PreAuthZ\npriority: 100\nmodule: extension.wasm\n";

    fn error(text: &str) -> String {
        ManifestDefaults::parse(text.as_bytes()).unwrap_err().to_string()
    }

    fn with(line: &str) -> String {
        let field = line.split(':').next().unwrap();
        let others = WHOLE.lines().filter(|kept| !kept.starts_with(field));
        others.chain([line]).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn the_documented_manifest_is_read_whole() {
        let expected = ManifestDefaults {
            name: Some("my-extension".to_owned()),
            description: Some("what it does".to_owned()),
            version: Some("1.0.0".to_owned()),
            phase: Position::PreAuthZ,
            priority: 100,
            module: "extension.wasm".to_owned(),
            warnings: Vec::new(),
        };
        assert_eq!(ManifestDefaults::parse(WHOLE.as_bytes()), Ok(expected));
    }

    #[test]
    fn what_is_only_metadata_may_be_missing_or_unknown() {
        let text = "phase: PostStats\npriority: -1\nmodule: /a.wasm\nowner: me\nb: [1]";
        let read = ManifestDefaults::parse(text.as_bytes()).unwrap();
        assert_eq!((read.phase, read.priority, read.module.as_str()), (Position::PostStats, -1, "/a.wasm"));
        assert_eq!(
            read.warnings,
            [
                "manifest.yaml: schemaVersion is missing and taken as 1",
                "manifest.yaml: fields that nobody reads: b, owner"
            ]
        );
        let version = ManifestDefaults::parse(with("version: 1.5").as_bytes()).unwrap().version;
        assert_eq!(version.as_deref(), Some("1.5"));
        assert!(ManifestDefaults::parse(with("schemaVersion: \"1\"").as_bytes()).is_ok());
    }

    #[test]
    fn what_counts_is_checked_to_the_letter() {
        let phases = "should be PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats or PostStats";
        let cases = [
            ("schemaVersion: 2", "schemaVersion is 2: only 1 is known".to_owned()),
            ("phase:", format!("phase is missing: it {phases}")),
            ("phase: preauthz", format!("phase is preauthz, and {phases}")),
            ("phase: BeforeRouter", format!("phase is BeforeRouter, and {phases}")),
            ("phase: [PreAuthZ]", format!("phase is [\"PreAuthZ\"], and {phases}")),
            ("priority: null", "priority is missing: it should be a whole number".to_owned()),
            ("priority: \"100\"", "priority is \"100\", and should be a whole number of 32 bits".to_owned()),
            ("priority: 1.5", "priority is 1.5, and should be a whole number of 32 bits".to_owned()),
            ("priority: 3000000000", "priority is 3000000000, and should be a whole number of 32 bits".to_owned()),
            ("module: \"\"", "module is empty: it should be the module's path in the image".to_owned()),
            ("module: a/../../b", "module is a/../../b: a path without .. is needed".to_owned()),
            (
                "module: ./manifest.yaml",
                "module is manifest.yaml itself: it should be the module's path in the image".to_owned(),
            ),
            ("module: 7", "module is 7, and should be the module's path in the image".to_owned()),
            ("name: {a: b}", "name is {\"a\":\"b\"}, and should be text".to_owned()),
        ];
        for (line, expected) in cases {
            assert_eq!(error(&with(line)), format!("manifest.yaml: {expected}"), "{line}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_named() {
        assert!(error("- a\n- b").starts_with("manifest.yaml: is no mapping"));
        assert!(error("").starts_with("manifest.yaml: is no mapping"));
        assert!(error("a: b: c").starts_with("manifest.yaml: broken YAML"));
        assert!(error("a: 1\na: 2").starts_with("manifest.yaml: broken YAML"));
        assert!(error(&"[".repeat(60_000)).starts_with("manifest.yaml: broken YAML"));
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]";
        assert!(error(bomb).starts_with("manifest.yaml: broken YAML"), "{}", error(bomb));
        assert!(ManifestDefaults::parse(b"\xff").unwrap_err().to_string().contains("not UTF-8"));
    }
}
