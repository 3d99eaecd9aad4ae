//! One control plane per data folder: two would write over each other's memory.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::bail;

/// Held for as long as it lives. It ends with the process, however that ends: the file itself stays and means nothing.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "it is open, which is all that it is for")] Option<File>);

/// Fails where another process has the folder. A folder that cannot be used at all is no reason not to run: it costs the
/// memory, and whoever writes there says so.
pub fn lock(data_dir: &Path) -> anyhow::Result<Lock> {
    let file = fs::create_dir_all(data_dir)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(data_dir.join("lock")));
    let Ok(file) = file.inspect_err(|error| tracing::warn!(folder = %data_dir.display(), %error, "not locked")) else {
        return Ok(Lock(None));
    };
    match file.try_lock() {
        Ok(()) => Ok(Lock(Some(file))),
        Err(TryLockError::WouldBlock) => bail!(
            "--data-dir {}: another wasmplane runs on this folder, give each a folder of its own",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            tracing::warn!(folder = %data_dir.display(), %error, "not locked");
            Ok(Lock(None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_again_when_its_control_plane_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("new");
        let held = lock(&data).unwrap();
        let refused = lock(&data).unwrap_err().to_string();
        assert!(refused.contains(&data.display().to_string()), "{refused}");
        drop(held);
        assert!(lock(&data).is_ok());
    }
}
