//! Takes gzip and zstd off, told by their magic numbers, however often they are wrapped around one another. Pure.

use std::fmt;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::error::ImageError;
use super::limits::Budget;

/// Something that content is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Less than this zstd does not work with.
const SMALLEST_WINDOW_LOG: u32 = 10;

/// As much as a tar header: enough to tell everything apart.
const HEAD: usize = 512;

/// Content without its compression.
pub struct Opened<'a> {
    /// Outermost first.
    pub packing: Vec<Packing>,
    /// The first bytes; the reader begins with them as well.
    pub head: Vec<u8>,
    pub reader: Box<dyn Read + 'a>,
}

/// Opens content as a stream; at most `nesting` compressions are taken off.
pub fn open<'a>(what: &str, content: &'a [u8], nesting: usize, budget: &'a Budget) -> Result<Opened<'a>, ImageError> {
    let failed = |error| budget.judge(what, &error);
    let mut opened = peek(Box::new(content)).map_err(failed)?;
    while let Some(compression) = compression(&opened.head) {
        let mut packing = opened.packing;
        if packing.len() == nesting {
            return Err(too_often(what, budget.limits.nesting));
        }
        packing.push(compression);
        let decoded = decode(&packing, opened.reader, budget).map_err(failed)?;
        opened = Opened { packing, ..peek(decoded).map_err(failed)? };
    }
    if opened.packing.is_empty() {
        opened.reader = Box::new(budget.watch(opened.reader));
    }
    Ok(opened)
}

/// Said at the limit of wrappings.
pub fn too_often(what: &str, nesting: usize) -> ImageError {
    let reason = format!("packed more than {nesting} times over: publish the .wasm file itself");
    ImageError::Broken { what: what.to_owned(), reason }
}

fn peek<'a>(mut reader: Box<dyn Read + 'a>) -> io::Result<Opened<'a>> {
    let mut head = Vec::with_capacity(HEAD);
    reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let reader = Box::new(Cursor::new(head.clone()).chain(reader));
    Ok(Opened { packing: Vec::new(), head, reader })
}

fn compression(head: &[u8]) -> Option<Packing> {
    match head {
        [0x1f, 0x8b, ..] => Some(Packing::Gzip),
        // A frame, or one that decoders skip.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Packing::Zstd),
        _ => None,
    }
}

/// Takes the last of `packing` off.
fn decode<'a>(packing: &[Packing], reader: Box<dyn Read + 'a>, budget: &'a Budget) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing.last() {
        Some(Packing::Zstd) => {
            let mut decoder = ZstdDecoder::new(reader)?;
            // Decoders within one another work at the same time, each with memory of its own.
            let outer = packing.iter().filter(|it| **it == Packing::Zstd).count() as u32 - 1;
            decoder.window_log_max(budget.limits.window_log.saturating_sub(3 * outer).max(SMALLEST_WINDOW_LOG))?;
            Box::new(budget.watch(decoder))
        }
        _ => Box::new(budget.watch(MultiGzDecoder::new(reader))),
    })
}

/// Reads one packed module to its end.
pub fn read_limited(reader: impl Read, what: &str, budget: &Budget) -> Result<Vec<u8>, ImageError> {
    let limit = budget.limits.module;
    let mut content = Vec::new();
    reader.take(limit + 1).read_to_end(&mut content).map_err(|error| budget.judge(what, &error))?;
    if content.len() as u64 > limit {
        let what = format!("{what} unpacks to too much");
        return Err(ImageError::TooLarge { what, limit: super::limits::bytes(limit) });
    }
    content.shrink_to_fit();
    Ok(content)
}
