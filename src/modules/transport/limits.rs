//! What one fetch may take.

use std::time::Duration;

/// Over a limit is refused, never cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a module or blob, in bytes. Larger modules than this compile for minutes.
    pub size: u64,
    pub connect: Duration,
    /// Without a byte of the answer, or of an upload.
    pub idle: Duration,
    /// From the first byte sent to the last one received: of a body, of what a reference resolves to, of an image's blobs,
    /// of a push.
    pub overall: Duration,
    pub redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: 256 << 20,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            overall: Duration::from_secs(600),
            redirects: 5,
        }
    }
}
