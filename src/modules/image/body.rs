//! What an http(s) server or a file gives: a module, or one that is packed. Pure.
//!
//! Told by content alone, since servers say little of use in `Content-Type`: the Wasm magic ends the search.

use bytes::Bytes;

use super::container::Container;
use super::error::ImageError;
use super::limits::{Budget, UnpackLimits};
use super::packing::{open, read_limited, too_often};
use super::{Extracted, Layout};

const BODY: &str = "the body";

/// Takes gzip, zstd and tar off, in any order, until something else appears: it is handed on as the module.
pub fn unwrap(body: Bytes, limits: &UnpackLimits) -> Result<Extracted, ImageError> {
    let mut extracted = Extracted::plain(body, Layout::Plain);
    let mut nesting = limits.nesting;
    loop {
        let content = extracted.module.clone();
        let budget = Budget::new(limits);
        let opened = open(BODY, &content, nesting, &budget)?;
        let packing = opened.packing.len();
        if !is_tar(&opened.head) {
            if packing > 0 {
                extracted.module = read_limited(opened.reader, BODY, &budget)?.into();
                extracted.layout = Layout::Packed;
            }
            return Ok(extracted);
        }
        if packing == nesting {
            return Err(too_often(BODY, limits.nesting));
        }
        nesting -= packing + 1;
        drop(opened);
        extracted = Container::read(vec![(BODY.to_owned(), &content)], limits)?.extract_packed()?;
    }
}

/// By the magic number, or where a tar of before 1988 has none, by the checksum of its first header.
fn is_tar(head: &[u8]) -> bool {
    if head.len() < 512 || head.starts_with(b"\0") {
        return false;
    }
    let sum = head[..148].iter().chain(&head[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    &head[257..262] == b"ustar" || tar::Header::from_byte_slice(head).cksum().is_ok_and(|stated| stated == sum)
}
