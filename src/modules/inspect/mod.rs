//! What a module is, and which Envoy releases would take it.
//!
//! Comes in: bytes. Goes out: a [`Report`]. Pure: no IO, no clock; what a real Envoy does is data beside this file.

mod advice;
mod contents;
mod host;
mod sections;
mod shape;
mod shown;
mod sniff;
mod start;
mod verdict;

pub use contents::{Contents, Export, Import, Item};
pub use host::{WITHOUT_WASM, releases};
pub use sections::Producer;
pub use shown::{list as shown_list, name as shown_name};
pub use sniff::Format;
pub use verdict::Verdict;

use crate::model::{Digest, EnvoyVersion};

/// All that inspection finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub format: Format,
    pub digest: Digest,
    /// In bytes.
    pub size: usize,
    /// `0_2_1`: the proxy-wasm ABI, by the module's marker.
    pub abi: Option<&'static str>,
    /// Imports, exports and the rest; empty for what is no valid core module.
    pub contents: Contents,
    /// One per release of [`releases`], oldest first.
    pub verdicts: Vec<(EnvoyVersion, Verdict)>,
    /// What is odd about a plugin that may load all the same.
    pub warnings: Vec<String>,
}

impl Report {
    /// The releases that would refuse it, each with the reason.
    pub fn refusals(&self) -> Vec<(EnvoyVersion, String)> {
        self.verdicts.iter().filter_map(|(release, verdict)| Some((*release, reason(verdict)?.to_owned()))).collect()
    }

    /// Why no known release takes it, in the newest one's words; `None` if some release does.
    pub fn refusal_by_all(&self) -> Option<&str> {
        let all_refuse = self.verdicts.iter().all(|(_, verdict)| reason(verdict).is_some());
        self.verdicts.last().filter(|_| all_refuse).and_then(|(_, verdict)| reason(verdict))
    }
}

fn reason(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Accepted => None,
        Verdict::Refused(reason) => Some(reason),
    }
}

/// Reads the bytes to the last one and judges them for every known release.
pub fn inspect(bytes: &[u8]) -> Report {
    let format = Format::of(bytes);
    let digest = Digest::of(bytes);
    let size = bytes.len();
    match read(format, bytes) {
        Ok(contents) => Report {
            abi: verdict::abi(&contents),
            verdicts: for_each_release(|release| verdict::judge(&contents, release)),
            warnings: verdict::abi(&contents).map(|_| advice::warnings(&contents)).unwrap_or_default(),
            format,
            digest,
            size,
            contents,
        },
        Err(fault) => Report {
            abi: None,
            verdicts: for_each_release(|_| Verdict::Refused(fault.clone())),
            warnings: Vec::new(),
            format,
            digest,
            size,
            contents: Contents::default(),
        },
    }
}

fn read(format: Format, bytes: &[u8]) -> Result<Contents, String> {
    if format != Format::CoreModule {
        return Err(format.instead_of_module());
    }
    Contents::read(bytes).map_err(|error| format!("damaged or cut short, or uses what Envoy's V8 lacks: {error}"))
}

fn for_each_release(judge: impl Fn(EnvoyVersion) -> Verdict) -> Vec<(EnvoyVersion, Verdict)> {
    releases().iter().map(|release| (*release, judge(*release))).collect()
}

#[cfg(test)]
mod tests;
