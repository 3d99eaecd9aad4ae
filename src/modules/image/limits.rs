//! What unpacking may cost.

use std::cell::Cell;
use std::io::{self, Read};

use super::error::ImageError;

/// What one image or body may unpack to. Over the limit is refused, never cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the module itself.
    pub module: u64,
    /// Bytes that all layers, or all wrappings of one body, unpack to.
    pub unpacked: u64,
    /// Archive entries, of all layers together.
    pub entries: usize,
    /// Bytes of one name in an archive.
    pub name: usize,
    /// Bytes of all names together, link targets included.
    pub names: usize,
    /// Folders in one another.
    pub depth: usize,
    /// Wrappings in one another: gzip, zstd and tar each count as one.
    pub nesting: usize,
    /// Power of two of the memory that zstd may ask for, an eighth of it where it is within zstd. 27 is what its own tool
    /// takes without being told to.
    pub window_log: u32,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            module: 256 << 20,
            unpacked: 1 << 30,
            entries: 100_000,
            name: 4096,
            names: 16 << 20,
            depth: 128,
            nesting: 4,
            window_log: 27,
        }
    }
}

impl UnpackLimits {
    /// Bytes that one unpacking takes beside what it reads: the module, and what decoders look back at.
    pub fn memory(&self) -> u64 {
        self.module.saturating_add(1 << self.window_log)
    }
}

/// Bytes, as messages show them.
pub fn bytes(count: u64) -> String {
    if count >= 1 << 20 && count.is_multiple_of(1 << 20) {
        format!("{} MiB", count >> 20)
    } else {
        format!("{count} bytes")
    }
}

/// Said of what lacks its end.
pub const CUT: &str = "ends too early: the upload or download was cut short";

/// What is left of the limits while one image or body is unpacked.
pub struct Budget {
    pub limits: UnpackLimits,
    unpacked: Cell<u64>,
    is_exceeded: Cell<bool>,
    /// Nothing more came: what is missing then was cut off.
    is_at_end: Cell<bool>,
}

impl Budget {
    pub fn new(limits: &UnpackLimits) -> Self {
        Self { limits: *limits, unpacked: Cell::new(0), is_exceeded: Cell::new(false), is_at_end: Cell::new(false) }
    }

    /// Counts all that is read.
    pub fn watch<R: Read>(&self, reader: R) -> Watched<'_, R> {
        Watched { reader, budget: self }
    }

    /// What an error while reading means: a limit was met, or the content is damaged.
    pub fn judge(&self, what: &str, error: &io::Error) -> ImageError {
        if self.is_exceeded.get() {
            let what = format!("{what} unpacks to too much");
            return ImageError::TooLarge { what, limit: bytes(self.limits.unpacked) };
        }
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => CUT.to_owned(),
            _ if self.is_at_end.get() => CUT.to_owned(),
            _ => format!("damaged: {}", super::error::shown(error.to_string().as_bytes())),
        };
        ImageError::Broken { what: what.to_owned(), reason }
    }
}

/// A reader whose bytes are counted.
pub struct Watched<'a, R> {
    reader: R,
    budget: &'a Budget,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer).inspect_err(|error| {
            // Zstd's own words, which never are that something is missing, though what it is within may be at its end.
            if error.kind() == io::ErrorKind::Other {
                self.budget.is_at_end.set(false);
            }
        })?;
        self.budget.is_at_end.set(read == 0 && !buffer.is_empty());
        let unpacked = self.budget.unpacked.get().saturating_add(read as u64);
        self.budget.unpacked.set(unpacked);
        if unpacked > self.budget.limits.unpacked {
            self.budget.is_exceeded.set(true);
            return Err(io::Error::other("over the limit"));
        }
        Ok(read)
    }
}
