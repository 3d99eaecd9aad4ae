//! What quickstart starts: a work folder, an upstream, the control plane and an Envoy, all on loopback.
//!
//! Dropping it ends the processes and removes the folder.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::manifests;
use super::process::{LoggedProcess, listening};
use crate::commands::bootstrap::{Bootstrap, Endpoint, Protocol};

/// From the start of a process until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// All that runs.
pub struct World {
    /// Where Envoy takes requests.
    pub port: u16,
    pub upstream: SocketAddr,
    pub xds: SocketAddr,
    pub admin: SocketAddr,
    pub envoy_admin: SocketAddr,
    folder: PathBuf,
    server: LoggedProcess,
    envoy: LoggedProcess,
    /// Aborted on drop.
    _upstream: JoinSet<()>,
    _folder: TempDir,
}

impl World {
    /// Starts everything, with the example's ProxyTemplate and without its plugin.
    pub async fn start(envoy: &Path) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("wasmplane-quickstart-").tempdir()?;
        // A path without symbolic links, as it becomes part of a `file://` that is compared with a folder's path.
        let folder = temporary.path().canonicalize()?;
        for name in ["config", "modules", "data"] {
            std::fs::create_dir(folder.join(name))?;
        }
        std::fs::write(folder.join("modules/hello.wasm"), manifests::module())?;
        std::fs::write(folder.join("hello.wat"), manifests::module_source())?;

        let (upstream, upstream_task) = start_upstream().await?;
        let port = free_port()?;
        std::fs::write(folder.join("config/proxytemplate.yaml"), manifests::proxy_template(port, upstream.port()))?;
        let (server, xds, admin) = start_server(&folder).await?;
        let (envoy, envoy_admin) = start_envoy(&folder, envoy, xds).await?;
        Ok(Self {
            port,
            upstream,
            xds,
            admin,
            envoy_admin,
            folder,
            server,
            envoy,
            _upstream: upstream_task,
            _folder: temporary,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The WasmPlugin that people edit.
    pub fn plugin_file(&self) -> PathBuf {
        self.folder.join("config/wasmplugin.yaml")
    }

    /// Writes the example's WasmPlugin with this greeting, as an editor does: beside it, then renamed over it.
    pub fn write_plugin(&self, greeting: &str) -> std::io::Result<()> {
        let unfinished = self.folder.join("config/.wasmplugin.yaml");
        let manifest = manifests::wasm_plugin(&self.folder.join("modules/hello.wasm"), greeting);
        std::fs::write(&unfinished, manifest)?;
        std::fs::rename(unfinished, self.plugin_file())
    }

    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        self.server.ensure_running()?;
        self.envoy.ensure_running()
    }

    /// What the control plane and Envoy said last.
    pub fn last_words(&self) -> String {
        format!("{}{}", self.server.last_words(20), self.envoy.last_words(20))
    }
}

async fn start_upstream() -> anyhow::Result<(SocketAddr, JoinSet<()>)> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(async || "hello from the upstream\n");
    let mut task = JoinSet::new();
    task.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            eprintln!("the upstream ended: {error}");
        }
    });
    Ok((address, task))
}

async fn start_server(folder: &Path) -> anyhow::Result<(LoggedProcess, SocketAddr, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    // What the shell says about another control plane must not reach this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WASMPLANE_")) {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "info").arg("serve");
    for (flag, name) in [("--config", "config"), ("--module-files", "modules"), ("--data-dir", "data")] {
        command.arg(flag).arg(folder.join(name));
    }
    command.args(["--xds-listen", "127.0.0.1:0", "--modules-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut server = LoggedProcess::spawn("wasmplane serve", command, &folder.join("server.log"))?;
    let (xds, admin) = started(&mut server, |server| {
        let log = server.log();
        listening(&log, "xds").zip(listening(&log, "admin"))
    })
    .await?;
    Ok((server, xds, admin))
}

async fn start_envoy(folder: &Path, binary: &Path, xds: SocketAddr) -> anyhow::Result<(LoggedProcess, SocketAddr)> {
    let bootstrap = Bootstrap {
        node_id: "hello-1".to_owned(),
        namespace: manifests::NAMESPACE.to_owned(),
        labels: BTreeMap::from([(manifests::LABEL.0.to_owned(), manifests::LABEL.1.to_owned())]),
        cluster: "quickstart".to_owned(),
        xds: Endpoint { host: xds.ip().to_string(), port: xds.port() },
        tls: None,
        protocol: Protocol::Delta,
        admin_port: 0,
    };
    let (file, admin_address) = (folder.join("envoy.yaml"), folder.join("envoy-admin-address"));
    std::fs::write(&file, bootstrap.to_string())?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin_address).args([
        "--disable-hot-restart",
        "--concurrency",
        "2",
        "--drain-strategy",
        "immediate",
        "--drain-time-s",
        "10",
    ]);
    let mut envoy = LoggedProcess::spawn("envoy", command, &folder.join("envoy.log"))?;
    let admin =
        started(&mut envoy, |_| std::fs::read_to_string(&admin_address).ok().and_then(|text| text.trim().parse().ok()))
            .await?;
    Ok((envoy, admin))
}

/// Waits until a new process shows what it is asked for; if it does not, its last words are the error.
async fn started<T>(
    process: &mut LoggedProcess,
    mut sign: impl FnMut(&LoggedProcess) -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut polls = interval(POLL);
    loop {
        polls.tick().await;
        if let Some(found) = sign(process) {
            return Ok(found);
        }
        if let Err(error) = process.ensure_running() {
            anyhow::bail!("{error}\n{}", process.last_words(20));
        }
        if Instant::now() > deadline {
            anyhow::bail!("not ready after {} s\n{}", START_TIMEOUT.as_secs(), process.last_words(20));
        }
    }
}

/// A port that was free a moment ago. Envoy cannot take port 0 here, as the manifest names the port.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
