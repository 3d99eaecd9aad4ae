//! `spec.sha256`: which bytes it may be the digest of. Pure.
//!
//! People copy it from where they are: from the module that they built, from the file that they uploaded, from what a
//! registry calls the image. Each of them names the very bytes, so each is as good.

use std::fmt;

use super::error::FetchError;
use super::inspect::Format;
use crate::model::Digest;

/// What a digest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Module,
    /// The body or file before it was unpacked.
    Body,
    /// The image's manifest.
    Image,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module => "the module",
            Self::Body => "the body as served",
            Self::Image => "the image",
        })
    }
}

/// Everything that a pin was compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared(Vec<(Subject, Digest)>);

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(Subject::Module, digest)] = self.0[..] {
            return write!(f, "{digest}");
        }
        let each: Vec<String> = self.0.iter().map(|(subject, digest)| format!("{digest} for {subject}")).collect();
        f.write_str(&each.join(" and "))
    }
}

/// Which of the digests the pin is, of what came.
pub fn compare(pin: Digest, digests: &[(Subject, Digest)], came: Format) -> Result<Subject, FetchError> {
    match digests.iter().find(|(_, digest)| *digest == pin) {
        Some((subject, _)) => Ok(*subject),
        None => {
            let came = if came == Format::CoreModule { String::new() } else { came.instead_of_module() };
            Err(FetchError::DigestMismatch { expected: pin, actual: Compared(digests.to_vec()), came })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_may_be_of_any_and_the_message_says_of_which() {
        let [module, image, other] = [b"module".as_slice(), b"image", b"other"].map(Digest::of);
        let digests = [(Subject::Module, module), (Subject::Image, image)];
        assert_eq!(compare(module, &digests, Format::CoreModule).unwrap(), Subject::Module);
        assert_eq!(compare(image, &digests, Format::CoreModule).unwrap(), Subject::Image);
        assert_eq!(
            compare(other, &digests, Format::CoreModule).unwrap_err().to_string(),
            format!("sha256 mismatch: expected {other}, got {module} for the module and {image} for the image")
        );
        assert_eq!(
            compare(other, &digests[..1], Format::CoreModule).unwrap_err().to_string(),
            format!("sha256 mismatch: expected {other}, got {module}")
        );
        let page = compare(other, &digests[..1], Format::Html).unwrap_err().to_string();
        assert!(
            page.ends_with(&format!(
                "got {module}: not a WebAssembly module but an HTML page: {}",
                Format::Html.advice()
            ))
        );
    }
}
