//! Files that are whole or not there, whatever happens while they are written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Names of unfinished files begin so. They are never read, and whoever owns the folder removes those that a crash left.
pub const UNFINISHED: &str = ".unfinished-";

/// Writes beside the target, to the disk, and only then under its name. Makes the folder if it is missing. Readable by
/// its owner only, as what is kept may hold secrets.
pub fn write_whole(target: &Path, content: &[u8]) -> io::Result<()> {
    replace(target, content)?;
    sync_folder(target.parent().unwrap_or(Path::new(".")))
}

/// As [`write_whole`], but a power cut may bring the old content back until [`sync_folder`] was called.
pub fn replace(target: &Path, content: &[u8]) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

/// Names that are new in the folder, or gone from it, survive a power cut from now on.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
