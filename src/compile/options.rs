//! Wasm settings that only newer Envoys know: an older one would pass over them in silence.

use crate::model::{EnvoyVersion, WasmOptions};

/// A setting and the first Envoy release that has the field behind it.
struct Rule {
    /// As operators write it.
    annotation: &'static str,
    since: EnvoyVersion,
    is_set: fn(&WasmOptions) -> bool,
}

/// From Envoy's changelogs: `failure_policy` with `reload_config` came with 1.33.0 (envoyproxy/envoy#36456),
/// `allow_on_headers_stop_iteration` with 1.35.0; the capability restriction is in the documentation from 1.18.
const RULES: [Rule; 3] = [
    Rule {
        annotation: "wasmplane.io/allowed-capabilities",
        since: EnvoyVersion::new(1, 18, 0),
        is_set: |options| options.allowed_capabilities.is_some(),
    },
    Rule {
        annotation: "wasmplane.io/reload-backoff",
        since: EnvoyVersion::new(1, 33, 0),
        is_set: |options| options.reload_backoff.is_some(),
    },
    Rule {
        annotation: "wasmplane.io/allow-on-headers-stop-iteration",
        since: EnvoyVersion::new(1, 35, 0),
        is_set: |options| options.allow_on_headers_stop_iteration.is_some(),
    },
];

/// Why an Envoy of that version is too old for `options`; one that does not say its version is taken for a new one.
pub fn too_old(options: &WasmOptions, version: Option<EnvoyVersion>) -> Option<String> {
    let version = version?;
    let is_unknown = |rule: &&Rule| (rule.is_set)(options) && version < rule.since;
    let reasons: Vec<_> = RULES
        .iter()
        .filter(is_unknown)
        .map(|Rule { annotation, since, .. }| format!("{annotation} needs Envoy {}.{}", since.major, since.minor))
        .collect();
    (!reasons.is_empty()).then(|| format!("{}, this is {version}", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ReloadBackoff;

    #[test]
    fn each_setting_is_refused_below_its_release_and_taken_from_it_on() {
        let header = WasmOptions { allow_on_headers_stop_iteration: Some(false), ..WasmOptions::default() };
        let capabilities = WasmOptions { allowed_capabilities: Some([].into()), ..WasmOptions::default() };
        let backoff = ReloadBackoff { base: Duration::from_secs(1), max: None };
        let reload = WasmOptions { reload_backoff: Some(backoff), ..WasmOptions::default() };
        let cases = [
            (
                &header,
                (1, 34, 9),
                Some("wasmplane.io/allow-on-headers-stop-iteration needs Envoy 1.35, this is 1.34.9"),
            ),
            (&header, (1, 35, 0), None),
            (&capabilities, (1, 17, 4), Some("wasmplane.io/allowed-capabilities needs Envoy 1.18, this is 1.17.4")),
            (&capabilities, (1, 18, 0), None),
            (&reload, (1, 32, 0), Some("wasmplane.io/reload-backoff needs Envoy 1.33, this is 1.32.0")),
            (&reload, (1, 33, 0), None),
        ];
        for (options, (major, minor, patch), expected) in cases {
            let found = too_old(options, Some(EnvoyVersion::new(major, minor, patch)));
            assert_eq!(found.as_deref(), expected);
        }
        assert_eq!(too_old(&header, None), None);
        assert_eq!(too_old(&WasmOptions::default(), Some(EnvoyVersion::new(1, 0, 0))), None);
    }

    #[test]
    fn all_that_is_too_new_is_said_at_once() {
        let options = WasmOptions {
            allow_on_headers_stop_iteration: Some(true),
            reload_backoff: Some(ReloadBackoff { base: Duration::from_secs(1), max: None }),
            ..WasmOptions::default()
        };
        assert_eq!(
            too_old(&options, Some(EnvoyVersion::new(1, 32, 1))).unwrap(),
            "wasmplane.io/reload-backoff needs Envoy 1.33, \
             wasmplane.io/allow-on-headers-stop-iteration needs Envoy 1.35, this is 1.32.1"
        );
    }
}
