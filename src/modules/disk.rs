//! Files that are whole or not there, whatever happens while they are written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Names of unfinished files begin so. They are never read, and removed by the store when old.
pub const UNFINISHED: &str = ".unfinished-";

/// Writes beside the target, to the disk, and only then under its name. Makes the folder if it is missing.
pub fn write_whole(target: &Path, content: &[u8]) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    // The new name must survive a power cut as well.
    File::open(folder)?.sync_all()
}
