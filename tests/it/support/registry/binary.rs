//! Finds `docker-registry`, or fetches Debian's package into the cache folder that the Envoys are in.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use wasmplane::commands::folders;

/// Names another binary.
const VARIABLE: &str = "WASMPLANE_TEST_REGISTRY";
/// For each program, on a slow network.
const AT_MOST: Duration = Duration::from_secs(120);

/// `None`, said loudly, where there is none to be had; in CI that fails the test.
pub async fn docker_registry() -> Option<PathBuf> {
    match find().await {
        Ok(binary) => Some(binary),
        Err(error) => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "no docker-registry: {error}");
            let words = format!("\n*** SKIPPED, as there is no docker-registry ***\n*** {error}\n\n");
            // Not eprintln!, whose output the test runner keeps back when the test passes.
            std::io::stderr().write_all(words.as_bytes()).expect("stderr is open");
            None
        }
    }
}

async fn find() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return if named.is_file() { Ok(named) } else { Err(format!("{VARIABLE}={} is no file", named.display())) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).map(|folder| folder.join("docker-registry"));
    if let Some(found) = candidates.into_iter().find(|candidate| candidate.is_file()) {
        return Ok(found);
    }
    let cache =
        folders::cache().ok_or("neither XDG_CACHE_HOME nor HOME says where a cache may be")?.join("wasmplane/registry");
    fetched(&cache).await
}

/// The package is unpacked beside its place and renamed into it, so that a file in the cache is whole.
async fn fetched(cache: &Path) -> Result<PathBuf, String> {
    let binary = cache.join("docker-registry");
    if binary.is_file() {
        return Ok(binary);
    }
    let said = |error: std::io::Error| format!("{}: {error}", cache.display());
    std::fs::create_dir_all(cache).map_err(said)?;
    let work = tempfile::Builder::new().prefix(".fetching-").tempdir_in(cache).map_err(said)?;
    run(work.path(), "apt-get", &["download", "docker-registry"]).await?;
    let mut packages = std::fs::read_dir(work.path()).map_err(said)?.flatten().map(|entry| entry.path());
    let package = packages.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let package = package.ok_or("apt-get download brought no package")?.display().to_string();
    run(work.path(), "dpkg", &["-x", &package, "."]).await?;
    std::fs::rename(work.path().join("usr/bin/docker-registry"), &binary).map_err(said)?;
    Ok(binary)
}

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(AT_MOST, output).await;
    let output = output.map_err(|_| format!("{program}: no end (set {VARIABLE}=PATH to do without)"))?;
    let output = output.map_err(|error| format!("{program}: {error} (set {VARIABLE}=PATH to do without)"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {words} (set {VARIABLE}=PATH to do without)", arguments.join(" ")))
}
