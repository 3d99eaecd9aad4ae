//! How plugins reach a proxy, and what of the proxy decided it.

use crate::model::{Capabilities, EnvoyVersion};

/// The first release with `envoy.filters.http.filter_chain`.
const CHAIN_SINCE: EnvoyVersion = EnvoyVersion::new(1, 39, 0);

/// How plugins reach a proxy (design, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One ECDS resource per gap between anchors.
    Chain,
    /// One ECDS resource per plugin.
    Filter,
    /// It cannot run Wasm: fail strategies stand in.
    NoWasm,
}

impl Mode {
    pub fn of(capabilities: Capabilities) -> Self {
        match (capabilities.wasm, capabilities.chain) {
            (false, _) => Self::NoWasm,
            (true, true) => Self::Chain,
            (true, false) => Self::Filter,
        }
    }

    /// What decided it, in words.
    pub fn reason(self, version: Option<EnvoyVersion>) -> String {
        let envoy = version.map_or_else(|| "this Envoy".to_owned(), |version| format!("Envoy {version}"));
        match self {
            Self::Chain => format!("{envoy} has envoy.filters.http.filter_chain and envoy.wasm.runtime.v8"),
            Self::Filter => {
                let EnvoyVersion { major, minor, .. } = CHAIN_SINCE;
                format!("{envoy} does not list envoy.filters.http.filter_chain, which {major}.{minor} and later have")
            }
            Self::NoWasm => format!("{envoy} does not list envoy.wasm.runtime.v8: fail strategies stand in"),
        }
    }
}

/// What a release can do as it is published.
pub fn capabilities_of(release: EnvoyVersion) -> Capabilities {
    Capabilities { chain: release >= CHAIN_SINCE, wasm: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_follows_from_the_release_and_names_what_decided_it() {
        let of = |minor| {
            let version = EnvoyVersion::new(1, minor, 0);
            let mode = Mode::of(capabilities_of(version));
            (mode, mode.reason(Some(version)))
        };
        assert_eq!(
            of(39),
            (Mode::Chain, "Envoy 1.39.0 has envoy.filters.http.filter_chain and envoy.wasm.runtime.v8".into())
        );
        assert_eq!(of(38).0, Mode::Filter);
        assert!(of(38).1.ends_with("which 1.39 and later have"));
        let without = Mode::of(Capabilities { chain: true, wasm: false });
        assert_eq!(without.reason(None), "this Envoy does not list envoy.wasm.runtime.v8: fail strategies stand in");
    }
}
