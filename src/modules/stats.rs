//! Counts for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::FetchError;
use super::registry::PullError;
use crate::model::ModuleLocation;

/// Where a module was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
    File,
    Oci,
}

impl Scheme {
    pub fn of(location: &ModuleLocation) -> Self {
        match location {
            ModuleLocation::Http(url) if url.starts_with("https:") => Self::Https,
            ModuleLocation::Http(_) => Self::Http,
            ModuleLocation::File(_) => Self::File,
            ModuleLocation::Oci(_) => Self::Oci,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::File => "file",
            Self::Oci => "oci",
        }
    }
}

/// What proxies fetched from the module server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Answers that ended with the last byte.
    pub whole: u64,
    /// Answers that ended before.
    pub cut: u64,
    /// Requests for modules that no plugin has.
    pub unknown: u64,
    pub bytes: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FetchResult {
    /// Fetched, verified and inspected.
    Fetched,
    /// In the store already; the source was not asked.
    Stored,
    /// The source did not give it.
    Unavailable,
    /// The source gave bytes that will not do.
    Refused,
}

impl FetchResult {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Stored => "stored",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// Why an attempt failed, for the label: few, and fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    /// 401, 403.
    Denied,
    /// 404, 410.
    NotFound,
    /// 429.
    RateLimited,
    /// 5xx.
    ServerError,
    /// Any other answer than the module.
    OtherStatus,
    /// No answer, or one that broke off.
    Transport,
    TooLarge,
    /// A local file that cannot be read, or must not be.
    File,
    DigestMismatch,
    /// Inspection: no Envoy would take it.
    Refused,
    /// A body or image that no module can be taken out of.
    Image,
    /// What should name an image does not.
    Reference,
    /// A pull secret that is of no use.
    Secret,
    /// An answer that no registry gives.
    Protocol,
    /// No room for the download.
    Disk,
    /// A bug.
    Crashed,
}

impl FailureReason {
    pub fn of(error: &FetchError) -> Self {
        match error {
            FetchError::Status { status, .. } => Self::of_status(*status),
            FetchError::Transport { .. } => Self::Transport,
            FetchError::TooLarge { .. } => Self::TooLarge,
            FetchError::File { .. } | FetchError::NotAFile { .. } | FetchError::Outside { .. } => Self::File,
            FetchError::DigestMismatch { .. } => Self::DigestMismatch,
            FetchError::Image(_) => Self::Image,
            FetchError::Refused { .. } => Self::Refused,
            FetchError::Crashed { .. } => Self::Crashed,
            FetchError::Pull { cause, .. } => Self::of_pull(cause),
        }
    }

    fn of_pull(error: &PullError) -> Self {
        match error {
            PullError::Answer { status, .. } => Self::of_status(*status),
            PullError::Transport { .. } => Self::Transport,
            PullError::Digest { .. } => Self::DigestMismatch,
            PullError::TooLarge { .. } => Self::TooLarge,
            PullError::Size { .. } | PullError::Protocol { .. } => Self::Protocol,
            PullError::Secret { .. } => Self::Secret,
            PullError::Image(_) => Self::Image,
            PullError::Reference(_) => Self::Reference,
            PullError::Disk { .. } => Self::Disk,
        }
    }

    fn of_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            429 => Self::RateLimited,
            500..=599 => Self::ServerError,
            _ => Self::OtherStatus,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::OtherStatus => "other_status",
            Self::Transport => "transport",
            Self::TooLarge => "too_large",
            Self::File => "file",
            Self::DigestMismatch => "digest_mismatch",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
            Self::Image => "image",
            Self::Reference => "reference",
            Self::Secret => "secret",
            Self::Protocol => "protocol",
            Self::Disk => "disk",
        }
    }
}

/// What the metrics show of this room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since the start.
    pub fetches: BTreeMap<(Scheme, FetchResult), u64>,
    /// Of the modules that were fetched, as they were run.
    pub fetched_bytes: BTreeMap<Scheme, u64>,
    pub failures: BTreeMap<(Scheme, FailureReason), u64>,
    /// What the stored modules take on disk.
    pub store_bytes: u64,
    /// Modules that were read back from disk, and needed no source.
    pub store_hits: u64,
    /// Modules that were removed because nobody used them.
    pub store_removed: u64,
    /// Why nothing can be written to the data folder at present.
    pub store_fault: Option<String>,
    pub served: Served,
}

/// Counts attempts.
#[derive(Default)]
pub struct FetchCounter(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    fetches: BTreeMap<(Scheme, FetchResult), u64>,
    bytes: BTreeMap<Scheme, u64>,
    failures: BTreeMap<(Scheme, FailureReason), u64>,
}

impl FetchCounter {
    pub fn count(&self, location: &ModuleLocation, result: FetchResult) {
        *self.counts().fetches.entry((Scheme::of(location), result)).or_default() += 1;
    }

    /// An attempt that ended well.
    pub fn fetched(&self, location: &ModuleLocation, bytes: usize) {
        self.count(location, FetchResult::Fetched);
        *self.counts().bytes.entry(Scheme::of(location)).or_default() += bytes as u64;
    }

    pub fn failed(&self, location: &ModuleLocation, error: &FetchError) {
        let result = if error.is_about_content() { FetchResult::Refused } else { FetchResult::Unavailable };
        self.count(location, result);
        *self.counts().failures.entry((Scheme::of(location), FailureReason::of(error))).or_default() += 1;
    }

    pub fn fetches(&self) -> BTreeMap<(Scheme, FetchResult), u64> {
        self.counts().fetches.clone()
    }

    pub fn fetched_bytes(&self) -> BTreeMap<Scheme, u64> {
        self.counts().bytes.clone()
    }

    pub fn failures(&self) -> BTreeMap<(Scheme, FailureReason), u64> {
        self.counts().failures.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
