//! Why a module is not to be had.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::image::ImageError;
use super::pin::Compared;
use super::registry::PullError;
use crate::model::Digest;

/// One failed attempt to get a module. The text goes into the plugin's status.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server answered, but not with the module. Tried again: somebody may upload it yet.
    #[error("GET {url}: {status}")]
    Status { url: String, status: http::StatusCode, retry_after: Option<Duration> },

    /// No answer, or one that broke off. Tried again.
    #[error("GET {url}: {cause}")]
    Transport { url: String, cause: String },

    /// More bytes than we take; refused, not cut. Tried again, slowly.
    #[error("{location}: larger than the limit of {limit} bytes")]
    TooLarge { location: String, limit: u64 },

    /// A file of `--module-files` cannot be read. Tried again when it changes.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },

    /// Not a file, as a folder or a pipe is. Tried again when it changes.
    #[error("{}: not a regular file", path.display())]
    NotAFile { path: PathBuf },

    /// A symbolic link or `..` leads out of the folders that the operator opened. Tried again when it changes.
    #[error("{}: leads to {}, which is outside of --module-files {}", path.display(), target.display(), folder.display())]
    Outside { path: PathBuf, target: PathBuf, folder: PathBuf },

    /// The bytes are not the ones that the plugin pinned. Tried again, slowly; an image of a digest is not.
    #[error("sha256 mismatch: expected {expected}, got {actual}{}", described(.came))]
    DigestMismatch {
        expected: Digest,
        actual: Compared,
        /// Empty for a WebAssembly module.
        came: String,
    },

    /// No module can be taken out of what came. Tried again, slowly; an image of a digest is not.
    #[error(transparent)]
    Image(#[from] ImageError),

    /// No known Envoy would take the module. Tried again, slowly; an image of a digest is not.
    #[error("{reason}")]
    Refused { reason: String },

    /// A fault of ours, kept from stopping the rest.
    #[error("inspection crashed: this is a bug in wasmplane ({cause})")]
    Crashed { cause: String },

    /// An image cannot be had; the cause says whether it is tried again.
    #[error("oci://{reference}: {cause}")]
    Pull { reference: String, cause: Box<PullError> },
}

impl FetchError {
    /// The source gave bytes, and they will not do: asking again soon does not help.
    pub fn is_about_content(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::DigestMismatch { .. }
            | Self::Image(_)
            | Self::Refused { .. }
            | Self::Crashed { .. } => true,
            Self::Pull { cause, .. } => cause.is_about_content(),
            Self::Status { .. }
            | Self::Transport { .. }
            | Self::File { .. }
            | Self::NotAFile { .. }
            | Self::Outside { .. } => false,
        }
    }

    /// Whether its text says what could not be had. What is found inside the bytes says it of them only.
    pub fn names_source(&self) -> bool {
        match self {
            Self::DigestMismatch { .. } | Self::Image(_) | Self::Refused { .. } | Self::Crashed { .. } => false,
            Self::Status { .. }
            | Self::Transport { .. }
            | Self::TooLarge { .. }
            | Self::File { .. }
            | Self::NotAFile { .. }
            | Self::Outside { .. }
            | Self::Pull { .. } => true,
        }
    }

    /// A reference that is a digest names the very bytes, so that no later attempt can end otherwise.
    pub fn is_final_of_a_digest(&self) -> bool {
        matches!(self, Self::DigestMismatch { .. } | Self::Image(_) | Self::Refused { .. } | Self::Crashed { .. })
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Pull { cause, .. } => cause.retry_after(),
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn described(came: &str) -> String {
    if came.is_empty() { String::new() } else { format!(": {came}") }
}
