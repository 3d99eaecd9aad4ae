//! A file's text, turned into all that it declares.

use std::path::Path;

use super::Finding;
use super::document::{Declaration, declarations};
use super::report::about_file;
use super::yaml;

/// The largest file that is read.
pub(super) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A file that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Manifest {
    /// No documents at all: nobody's wish to delete anything, more likely a write that was cut off.
    pub is_empty: bool,
    /// In the order of the file.
    pub declarations: Vec<Declaration>,
}

/// Reads `bytes`; text that is broken anywhere is refused whole, with one finding.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Manifest, Finding> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(about_file(file, too_large(bytes.len() as u64)));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Finding { line, ..about_file(file, "is no UTF-8 text") }
    })?;
    parse_text(file, text)
}

/// Reads `text`, of whatever length.
pub(super) fn parse_text(file: &Path, text: &str) -> Result<Manifest, Finding> {
    let documents = yaml::parse(text).map_err(|broken| {
        let (line, column) = (broken.place.line, broken.place.column);
        Finding { line, column, ..about_file(file, broken.reason) }
    })?;
    let all = documents.iter().flat_map(|document| declarations(file, document)).collect();
    Ok(Manifest { is_empty: documents.is_empty(), declarations: all })
}

pub(super) fn too_large(bytes: u64) -> String {
    format!("has {bytes} bytes, at most {MAX_FILE_BYTES} are read")
}
