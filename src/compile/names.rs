//! Names of ours on the wire (design, section 1.4).

use std::ops::RangeInclusive;

use crate::model::Position;

/// The chain of a gap: it says which positions it holds, so it keeps its meaning when an anchor comes or goes.
pub fn chain(listener: &str, first: Position, last: Position) -> String {
    format!("wasmplane/{listener}/{}-{}", first.as_str(), last.as_str())
}

/// The inverse of [`chain`].
pub fn parse_chain(name: &str) -> Option<(&str, RangeInclusive<Position>)> {
    // A listener's name may hold slashes, a position's may not.
    let (listener, positions) = name.strip_prefix("wasmplane/")?.rsplit_once('/')?;
    let (first, last) = positions.split_once('-')?;
    let (first, last) = (Position::parse(first)?, Position::parse(last)?);
    (!listener.is_empty() && first <= last).then_some((listener, first..=last))
}

/// Where proxies fetch modules.
pub const MODULES_CLUSTER: &str = "wasmplane/modules";

/// The upstream of a listener in the short form; it stays when `forwardTo` changes.
pub fn cluster(listener: &str) -> String {
    format!("wasmplane/{listener}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_name_and_its_meaning_are_inverses() {
        let name = chain("in/8080", Position::PreAuthN, Position::BeforeRouter);
        assert_eq!(name, "wasmplane/in/8080/PreAuthN-BeforeRouter");
        assert_eq!(parse_chain(&name), Some(("in/8080", Position::PreAuthN..=Position::BeforeRouter)));
    }

    #[test]
    fn a_malformed_chain_name_means_nothing() {
        for name in [
            "wasmplane/staging",
            "wasmplane//PreAuthN-PreAuthN",
            "wasmplane/l/PreAuthN",
            "wasmplane/l/PreAuthN-",
            "wasmplane/l/BeforeRouter-PreAuthN",
            "wasmplane/l/preauthn-BeforeRouter",
            "other/l/PreAuthN-BeforeRouter",
        ] {
            assert_eq!(parse_chain(name), None, "{name}");
        }
    }
}
