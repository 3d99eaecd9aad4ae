//! Why an image cannot be had from its registry, or put there.

use std::time::Duration;

use http::StatusCode;

use crate::model::{Digest, InvalidReference};
use crate::modules::image::ImageError;
use crate::modules::spool::Failed;

/// One failed attempt. The text goes into the plugin's status: no credentials in it, and foreign words cut and escaped.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Reference(#[from] InvalidReference),

    /// The registry, or its token server, answered with something else. Tried again.
    #[error("{what}: {status}{}{}", quoted(.said), noted(.whom))]
    Answer { what: String, status: StatusCode, said: String, whom: String, retry_after: Option<Duration> },

    /// No answer, or one that broke off. Tried again.
    #[error("{what}: {cause}")]
    Transport { what: String, cause: String },

    /// The registry's bytes are not what it, or the reference, says. Tried again, slowly.
    #[error("{what}: sha256 mismatch: {source_of_expected} says {expected}, the registry sent {actual}")]
    Digest { what: String, source_of_expected: &'static str, expected: Digest, actual: Digest },

    /// Tried again, slowly.
    #[error("{what}: the registry sent {actual} bytes, and announced {announced}")]
    Size { what: String, announced: u64, actual: u64 },

    /// More than we take; refused, not cut. Tried again, slowly.
    #[error("{what}: larger than the limit of {limit} bytes")]
    TooLarge { what: String, limit: u64 },

    /// An answer that no registry gives. Tried again.
    #[error("{what}: {reason}")]
    Protocol { what: String, reason: String },

    /// The secret that the plugin names is of no use. Tried again when it changes.
    #[error("imagePullSecret {namespace}/{name}: {reason}")]
    Secret { namespace: String, name: String, reason: String },

    /// Tried again, slowly.
    #[error(transparent)]
    Image(#[from] ImageError),

    /// No room to put a download, or no right to. Tried again.
    #[error("{what}: {cause}")]
    Disk { what: String, cause: Failed },
}

impl PullError {
    /// The registry gave bytes, and they will not do: asking again soon does not help.
    pub fn is_about_content(&self) -> bool {
        match self {
            Self::Reference(_) | Self::Digest { .. } | Self::Size { .. } | Self::TooLarge { .. } | Self::Image(_) => {
                true
            }
            Self::Answer { .. }
            | Self::Transport { .. }
            | Self::Protocol { .. }
            | Self::Secret { .. }
            | Self::Disk { .. } => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether other credentials may do better.
    pub fn is_about_rights(&self) -> bool {
        // Registries answer 404 for what one may not know of.
        matches!(
            self,
            Self::Answer { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, .. }
        )
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

fn noted(whom: &str) -> String {
    if whom.is_empty() { String::new() } else { format!(", asked {whom}") }
}
