//! Why no module can be had from an image, an archive or a body.

use std::fmt::Write as _;

/// All of these are about content: the same bytes fail again. Text from outside is cut and escaped before it gets here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A registry answered with something else.
    #[error("not an image manifest: {reason}")]
    NotAManifest { reason: String },

    /// Docker's format of before 2017.
    #[error(
        "a Docker schema 1 image: push it again with a tool of today (docker push, skopeo copy --format oci), or publish \
         the module with wasmplane push"
    )]
    SchemaOne,

    /// The header and the document name different formats, so that two readers would read two things.
    #[error("the registry says Content-Type {header}, and the document mediaType {document}: push the image again")]
    TwoTypes { header: String, document: String },

    /// An index without an image that could hold a module.
    #[error("none of the image's platforms fits: it offers {offered}; wasm, wasi or linux/amd64 is needed")]
    NoPlatform { offered: String },

    /// More than we take; refused, not cut.
    #[error("{what}: more than the limit of {limit}")]
    TooLarge { what: String, limit: String },

    /// A blob is not the one that the manifest speaks of.
    #[error("{what} has {actual} bytes, and the manifest says {expected}: push the image again")]
    WrongSize { what: String, expected: u64, actual: u64 },

    /// An image, but of no layout that holds a module.
    #[error("{found}; {right}")]
    Unsupported { found: String, right: &'static str },

    /// A layer or body that cannot be unpacked.
    #[error("{what}: {reason}")]
    Broken { what: String, reason: String },

    /// Everything could be read, and there is no module in it, or more than one.
    #[error("{what}: {reason}")]
    NoModule { what: String, reason: String },

    /// Maistra's manifest.yaml does not say what it has to.
    #[error("manifest.yaml: {reason}")]
    Manifest { reason: String },
}

/// Names in a message, at most.
const NAMES: usize = 10;
/// Characters of one foreign text in a message, at most.
const CHARACTERS: usize = 120;

/// Foreign text as a message may show it.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for character in text.chars().take(CHARACTERS) {
        match character {
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    if text.chars().nth(CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

/// The first few of many names.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut names = names.into_iter();
    let mut listed = names.by_ref().take(NAMES).map(shown).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        write!(listed, " and {more} more").expect("a String takes everything");
    }
    if listed.is_empty() { "none".to_owned() } else { listed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        assert_eq!(shown(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\u{fffd}");
        assert_eq!(shown(&[b'x'; 500]), format!("{}…", "x".repeat(120)));
        let many: Vec<Vec<u8>> = (0..13).map(|number| format!("f{number}").into_bytes()).collect();
        assert_eq!(listed(many.iter().map(Vec::as_slice)), "f0, f1, f2, f3, f4, f5, f6, f7, f8, f9 and 3 more");
        assert_eq!(listed([]), "none");
    }
}
