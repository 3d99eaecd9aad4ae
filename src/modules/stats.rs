//! Counts for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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

/// What the metrics show of this room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since the start.
    pub fetches: BTreeMap<(Scheme, FetchResult), u64>,
    /// What the stored modules take on disk.
    pub store_bytes: u64,
    /// Why nothing can be written to the data folder at present.
    pub store_fault: Option<String>,
}

/// Counts attempts.
#[derive(Default)]
pub struct FetchCounter(Mutex<BTreeMap<(Scheme, FetchResult), u64>>);

impl FetchCounter {
    pub fn count(&self, location: &ModuleLocation, result: FetchResult) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((Scheme::of(location), result)).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<(Scheme, FetchResult), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
