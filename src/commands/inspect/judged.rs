//! Which measured release stands for the Envoy that was asked for, and what is to be said of that.

use anyhow::{anyhow, bail};

use crate::model::EnvoyVersion;
use crate::modules::inspect::{WITHOUT_WASM, releases};

/// `--envoy`: `1.36` means the newest of 1.36.
#[derive(Clone, Debug)]
pub struct AskedVersion {
    text: String,
    version: EnvoyVersion,
}

const NOT_A_VERSION: &str = "not a version such as 1.36 or 1.36.4";

pub fn parse_version(text: &str) -> anyhow::Result<AskedVersion> {
    let text = text.trim_start_matches('v');
    let numbers = text.split('.').map(|part| part.parse().map_err(|_| anyhow!(NOT_A_VERSION)));
    let version = match numbers.collect::<Result<Vec<u32>, _>>()?[..] {
        [major, minor] => EnvoyVersion::new(major, minor, u32::MAX),
        [major, minor, patch] => EnvoyVersion::new(major, minor, patch),
        _ => bail!(NOT_A_VERSION),
    };
    Ok(AskedVersion { text: text.to_owned(), version })
}

/// The release whose verdict counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// As it was asked for.
    pub asked: Option<String>,
    /// A measured release.
    pub release: EnvoyVersion,
    /// Where that is not the one that was asked for.
    pub note: Option<String>,
}

impl Judged {
    pub fn of(asked: Option<&AskedVersion>) -> Self {
        let known = releases();
        let (oldest, newest) = (known[0], known[known.len() - 1]);
        let Some(AskedVersion { text, version }) = asked else {
            return Self { asked: None, release: newest, note: None };
        };
        let release = known.iter().rev().find(|release| *release <= version).copied().unwrap_or(oldest);
        let is_that_one = release == *version || release.to_string().starts_with(&format!("{text}."));
        let is_without = |build: &EnvoyVersion| {
            build == version
                || (version.patch == u32::MAX && (build.major, build.minor) == (version.major, version.minor))
        };
        let note = if let Some(build) = WITHOUT_WASM.iter().find(|build| is_without(build)) {
            Some(format!(
                "the build of {build} that PyPI has runs no Wasm at all; another build of {text} was not measured, and is \
                 judged as {release}"
            ))
        } else if is_that_one {
            None
        } else if *version < oldest {
            Some(format!(
                "{text} is older than all that was measured: judged as {release}, which may take more than it does"
            ))
        } else if *version > newest {
            Some(format!("{text} is newer than all that was measured: judged as {release}"))
        } else {
            Some(format!("{text} was not measured: judged as {release}, the next older release that was"))
        };
        Self { asked: Some(text.clone()), release, note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Judged {
        Judged::of(Some(&parse_version(text).unwrap()))
    }

    #[test]
    fn a_version_is_judged_as_the_newest_known_release_that_is_not_newer() {
        let cases = [
            ("1.36", "1.36.4", None),
            ("v1.40.0", "1.40.0", None),
            ("1.39", "1.39.3", None),
            ("1.37.2", "1.37.0", Some("1.37.2 was not measured: judged as 1.37.0, the next older")),
            ("1.38.0", "1.37.0", Some("1.38.0 was not measured")),
            ("1.38", "1.37.0", Some("the build of 1.38.3 that PyPI has runs no Wasm at all; another build of 1.38")),
            ("1.38.3", "1.37.0", Some("the build of 1.38.3 that PyPI has runs no Wasm at all")),
            ("1.20", "1.36.4", Some("1.20 is older than all that was measured")),
            ("1.41", "1.40.0", Some("1.41 is newer than all that was measured")),
            ("2.0", "1.40.0", Some("2.0 is newer")),
        ];
        for (text, release, note) in cases {
            let judged = judged(text);
            assert_eq!(judged.release.to_string(), release, "{text}");
            match (note, judged.note) {
                (None, None) => {}
                (Some(expected), Some(note)) => assert!(note.starts_with(expected), "{note}"),
                (_, note) => panic!("{text}: {note:?}"),
            }
        }
        assert_eq!(Judged::of(None).release.to_string(), "1.40.0");
        for text in ["", "1", "1.x", "1.2.3.4", "1.-2"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }
}
