//! Which plugin a refusal is about.

use crate::snapshot::{Part, Resource};

/// What Envoy says when a plugin cannot be loaded or configured; the plugin's name follows. The same in 1.36 to 1.40.
const UNABLE_TO_CREATE: &str = "Unable to create Wasm plugin ";

/// Whom a refusal can be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame<'a> {
    /// The message names it.
    Named(&'a Part),
    /// The message names nobody: it is about one of these, which the client never accepted under this name. Empty where
    /// nothing is new.
    OneOf(Vec<&'a Part>),
}

/// Reads `message` about `refused`; `accepted` is what the client took last under its name.
pub fn blame<'a>(refused: &'a Resource, accepted: &[Part], message: &str) -> Blame<'a> {
    match named_plugin(message).and_then(|name| refused.parts.iter().find(|part| &*part.owner == name)) {
        // It runs. What is new beside it is not to blame either: Envoy says so.
        Some(named) if accepted.contains(named) => Blame::OneOf(Vec::new()),
        Some(named) => Blame::Named(named),
        None => Blame::OneOf(refused.parts.iter().filter(|part| !accepted.contains(part)).collect()),
    }
}

/// The one place that reads an error's text: Envoy's NACK has no other way to say it. Other messages quote what authors
/// wrote, a script's error for one: the phrase and the name have to be all that is said.
fn named_plugin(message: &str) -> Option<&str> {
    let name = message.trim_end().strip_prefix(UNABLE_TO_CREATE)?;
    (!name.contains(char::is_whitespace)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ResourceType, Rope, Version};

    fn chain(parts: &[(&str, &str)]) -> Resource {
        let part = |(owner, revision): &(&str, &str)| Part { owner: (*owner).into(), revision: (*revision).into() };
        let parts: Vec<_> = parts.iter().map(part).collect();
        Resource::of_parts(ResourceType::ExtensionConfig, "c", Version::of_text("v"), parts, Rope::new())
    }

    #[test]
    fn the_message_of_every_envoy_release_names_the_plugin() {
        let refused = chain(&[("shop/a", "1"), ("shop/ab", "1")]);
        // Recorded from 1.36.4, 1.37.0, 1.38.3, 1.39.3 and 1.40.0, which agree.
        for message in ["Unable to create Wasm plugin shop/ab", "Unable to create Wasm plugin shop/ab\n"] {
            assert_eq!(blame(&refused, &[], message), Blame::Named(&refused.parts[1]));
        }
    }

    #[test]
    fn a_script_cannot_have_the_plugin_of_another_namespace_rejected() {
        let refused = chain(&[("istio-system/auth", "1"), ("shop/script", "1")]);
        let anybody = Blame::OneOf(refused.parts.iter().collect());
        for words in [
            "script load error: Unable to create Wasm plugin istio-system/auth",
            "script load error: Unable to create Wasm plugin istio-system/auth x",
            "script load error: [string \"error('Unable to create Wasm plugin istio-sy...\"]:1: x",
            "script load error: \nUnable to create Wasm plugin istio-system/auth\n",
            "Unable to create Wasm plugin istio-system/auth x",
            "Unable to create Wasm plugin istio-system/auth\nscript load error",
        ] {
            assert_eq!(blame(&refused, &[], words), anybody, "{words}");
        }
    }

    #[test]
    fn a_plugin_that_the_client_runs_is_blamed_for_nothing() {
        let accepted = chain(&[("shop/a", "1")]);
        let refused = chain(&[("shop/a", "1"), ("shop/b", "1")]);
        let nobody = Blame::OneOf(Vec::new());
        assert_eq!(blame(&refused, &accepted.parts, "Unable to create Wasm plugin shop/a"), nobody);
        let edited = chain(&[("shop/a", "2")]);
        let named = blame(&edited, &accepted.parts, "Unable to create Wasm plugin shop/a");
        assert_eq!(named, Blame::Named(&edited.parts[0]));
    }

    #[test]
    fn a_message_that_names_nobody_is_about_what_is_new() {
        let accepted = chain(&[("shop/a", "1")]);
        let refused = chain(&[("shop/a", "1"), ("shop/b", "1"), ("shop/c", "2")]);
        let new = refused.parts.iter().skip(1).collect();
        assert_eq!(blame(&refused, &accepted.parts, "script load error"), Blame::OneOf(new));
        assert_eq!(blame(&accepted, &accepted.parts, "too many filters"), Blame::OneOf(Vec::new()));
    }
}
