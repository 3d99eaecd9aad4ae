//! Envoy releases on the command line.

use crate::model::EnvoyVersion;
use crate::modules::releases;

/// The newest release that is known.
pub fn newest() -> EnvoyVersion {
    *releases().last().expect("the table of releases is part of the program and not empty")
}

/// `1.36.4` or `1.36`, which is its first patch release.
pub fn parse_release(text: &str) -> Result<EnvoyVersion, String> {
    let numbers: Result<Vec<u32>, _> = text.trim_start_matches('v').split('.').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([major, minor]) => Ok(EnvoyVersion::new(*major, *minor, 0)),
        Ok([major, minor, patch]) => Ok(EnvoyVersion::new(*major, *minor, *patch)),
        _ => Err("an Envoy release is such as 1.40 or 1.36.4".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_may_leave_out_its_patch() {
        assert_eq!(parse_release("1.36.4"), Ok(EnvoyVersion::new(1, 36, 4)));
        assert_eq!(parse_release("v1.40"), Ok(EnvoyVersion::new(1, 40, 0)));
        for wrong in ["1", "newest", "1.2.3.4", ""] {
            assert!(parse_release(wrong).is_err(), "{wrong}");
        }
    }
}
