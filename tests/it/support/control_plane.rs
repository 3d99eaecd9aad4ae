//! `wasmplane serve` as the built binary, with folders of its own, and the other commands asking it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use wasmplane::commands::quickstart::{LoggedProcess, listening};

use super::{cpu_time, http, is_by_digest, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_wasmplane");

/// A control plane and its folders. Not running until [`ControlPlane::start`]; killed on drop.
pub struct ControlPlane {
    folder: TempDir,
    config: PathBuf,
    data: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// Port 0 before the first start; what it got from then on.
    xds: SocketAddr,
    modules: SocketAddr,
    admin: SocketAddr,
    starts: u32,
    process: Option<LoggedProcess>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Printed {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl ControlPlane {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["config", "modules", "data"] {
            std::fs::create_dir(folder.path().join(name)).expect("the temporary folder is writable");
        }
        let (config, data) = (folder.path().join("config"), folder.path().join("data"));
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let flags = if is_by_digest() { vec!["--module-delivery=digest".to_owned()] } else { Vec::new() };
        Self {
            folder,
            config,
            data,
            flags,
            environment: Vec::new(),
            xds: unbound,
            modules: unbound,
            admin: unbound,
            starts: 0,
            process: None,
        }
    }

    /// More flags for `serve`, e.g. `["--root-namespace", "mesh"]`.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Another `--config` folder, e.g. that of another control plane.
    pub fn config_dir(mut self, folder: &Path) -> Self {
        self.config = folder.to_owned();
        self
    }

    /// A variable of its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another `--data-dir`, e.g. one that cannot be written.
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.data = folder.to_owned();
        self
    }

    /// A fixed xDS address, e.g. one that is taken.
    pub fn xds_listen(mut self, address: SocketAddr) -> Self {
        self.xds = address;
        self
    }

    /// Starts it; after a [`ControlPlane::kill`] with the same ports and folders.
    pub async fn start(&mut self) {
        assert!(self.process.is_none(), "the control plane runs already");
        let mut process = self.spawn();
        let (xds, modules, admin) = wait_until("the control plane's addresses", async || {
            if let Err(error) = process.ensure_running() {
                panic!("{error}\n{}", process.last_words(30));
            }
            let log = process.log();
            // With modules inline, nobody listens there.
            let modules = listening(&log, "modules").unwrap_or(self.modules);
            listening(&log, "xds").zip(listening(&log, "admin")).map(|(xds, admin)| (xds, modules, admin))
        })
        .await;
        (self.xds, self.modules, self.admin, self.process) = (xds, modules, admin, Some(process));
    }

    /// Starts it where it must fail: its exit code and what it printed.
    pub async fn start_in_vain(&mut self) -> Printed {
        let mut process = self.spawn();
        let status = wait_until("the end of a control plane that cannot start", async || {
            process
                .ensure_running()
                .err()
                .and_then(|error| error.downcast::<wasmplane::commands::quickstart::Ended>().ok())
        })
        .await
        .status;
        Printed { code: status.code(), stdout: String::new(), stderr: process.log() }
    }

    /// As a crash: no goodbye to any Envoy.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().await.expect("a child can be killed");
    }

    /// Asks it to end (SIGTERM) and waits until it did: its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it runs");
        let id = process.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &id]).status().await.expect("`kill` can be run");
        process.wait().await.expect("a child can be waited for").code()
    }

    pub async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Where Envoys connect to.
    pub fn xds(&self) -> SocketAddr {
        assert_ne!(self.xds.port(), 0, "the control plane was never started");
        self.xds
    }

    pub fn admin(&self) -> SocketAddr {
        assert_ne!(self.admin.port(), 0, "the control plane was never started");
        self.admin
    }

    /// The folder that is given as `--config`.
    pub fn config(&self) -> PathBuf {
        self.config.clone()
    }

    /// The folder that is given as `--module-files`.
    pub fn modules(&self) -> PathBuf {
        let folder = self.folder.path().canonicalize().expect("the temporary folder is there");
        folder.join("modules")
    }

    /// The folder that is given as `--data-dir`.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Writes a manifest beside its place and renames it there, as editors and `kubectl` do.
    pub fn write(&self, file: &str, yaml: &str) {
        replace(&self.config().join(file), yaml.as_bytes());
    }

    /// Deletes a manifest.
    pub fn delete(&self, file: &str) {
        std::fs::remove_file(self.config().join(file)).expect("the manifest was written before");
    }

    /// Puts a module into the module folder: the `file://` URL that a WasmPlugin names.
    pub fn module(&self, file: &str, bytes: &[u8]) -> String {
        let path = self.modules().join(file);
        replace(&path, bytes);
        format!("file://{}", path.display())
    }

    /// A page of the admin port, e.g. `/readyz` or `/metrics`.
    pub async fn admin_get(&self, path: &str) -> anyhow::Result<http::Response> {
        http::get(self.admin().port(), path).await
    }

    /// A command that asks this control plane, e.g. `["plugins", "--format", "json"]`.
    pub async fn ask(&self, arguments: &[&str]) -> Printed {
        let server = self.admin().to_string();
        wasmplane(&[arguments, &["--server", &server]].concat()).await
    }

    /// The most memory that it had at once since its last start, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let id = self.process.as_ref().and_then(LoggedProcess::id).expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        line.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("the kernel counts it") << 10
    }

    /// CPU time that it took since its last start.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.process.as_ref().and_then(LoggedProcess::id).expect("it runs"))
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("it runs").log()
    }

    /// The lines of its log, since its last start, with this message.
    pub fn logged(&self, message: &str) -> Vec<serde_json::Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Each start has a log of its own, so that old addresses are not read again.
    fn spawn(&mut self) -> LoggedProcess {
        self.starts += 1;
        let mut command = command();
        command.arg("serve").arg("--config").arg(self.config());
        command.arg("--module-files").arg(self.modules()).arg("--data-dir").arg(&self.data);
        command.arg("--modules-listen").arg(self.modules.to_string());
        command.arg("--xds-listen").arg(self.xds.to_string()).arg("--admin-listen").arg(self.admin.to_string());
        command.args(&self.flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = self.folder.path().join(format!("server-{}.log", self.starts));
        LoggedProcess::spawn("wasmplane serve", command, &log).expect("the binary was built")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("{}", process.last_words(60));
        }
    }
}

/// Runs a command of the built binary to its end.
pub async fn wasmplane(arguments: &[impl AsRef<OsStr>]) -> Printed {
    wasmplane_with(&[], arguments).await
}

/// The same, with these variables in its environment.
pub async fn wasmplane_with(environment: &[(&str, &OsStr)], arguments: &[impl AsRef<OsStr>]) -> Printed {
    let output = command()
        .envs(environment.iter().copied())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary was built");
    Printed {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary, without what the shell says about another control plane, or about proxies.
fn command() -> Command {
    let mut command = Command::new(BINARY);
    let is_foreign = |name: &str| name.starts_with("WASMPLANE_") || name.to_ascii_lowercase().ends_with("_proxy");
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_foreign(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("RUST_LOG", std::env::var("WASMPLANE_TEST_LOG").as_deref().unwrap_or("info")).kill_on_drop(true);
    command
}

fn replace(path: &Path, bytes: &[u8]) {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}"));
    std::fs::write(&unfinished, bytes).expect("the temporary folder is writable");
    std::fs::rename(&unfinished, path).expect("the temporary folder is writable");
}
