//! Small files of the data folder: read whole, written whole, renamed into place.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the file holds. One that is missing is empty; one that is broken is logged and starts anew.
pub fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    let Ok(text) = fs::read(path) else { return T::default() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "remembered state is unreadable and starts anew");
        T::default()
    })
}

/// Replaces the file. A failure is logged: what it would have remembered ends with the process.
pub fn write(path: &Path, content: &impl Serialize) {
    if let Err(error) = try_write(path, content) {
        tracing::error!(path = %path.display(), %error, "state cannot be remembered across a restart");
    }
}

fn try_write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
