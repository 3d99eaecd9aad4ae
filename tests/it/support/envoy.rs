//! Real Envoys: one release, one bootstrap, one process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use wasmplane::commands::bootstrap::{Bootstrap, ClientTls, Endpoint, Protocol};
use wasmplane::commands::quickstart::{Ended, LoggedProcess, envoy_binary};

use super::{cpu_time, http, wait_until};

/// Knows `filter_chain` and Wasm: chain mode.
pub const CHAIN: &str = "1.40.0";
/// Knows Wasm but no `filter_chain`: filter mode.
pub const FILTER: &str = "1.36.4";
/// Its build has no V8.
pub const NO_WASM: &str = "1.38.3";

/// The file in which Envoy writes where its admin server listens.
const ADMIN_ADDRESS: &str = "admin-address";

/// How to start an Envoy. May be cloned to start several, or one after the other.
#[derive(Clone)]
pub struct EnvoySetup {
    binary: PathBuf,
    bootstrap: Bootstrap,
    concurrency: u32,
    drain_seconds: u32,
}

/// A running Envoy, killed on drop.
pub struct Envoy {
    process: LoggedProcess,
    admin: SocketAddr,
    _folder: TempDir,
}

/// An Envoy of this release: node `envoy-1`, namespace `default`, no labels, delta. `None`, said loudly, where there is
/// none to be had; in CI that fails the test.
pub async fn envoy(version: &str) -> Option<EnvoySetup> {
    let binary = match envoy_binary(version).await {
        Ok(binary) => binary,
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "no Envoy {version}: {error}");
            // Not eprintln!, whose output the test runner keeps back when the test passes.
            let words = format!("\n*** SKIPPED, as there is no Envoy {version} ***\n*** {error}\n\n");
            std::io::stderr().write_all(words.as_bytes()).expect("stderr is open");
            return None;
        }
    };
    let bootstrap = Bootstrap {
        node_id: "envoy-1".to_owned(),
        namespace: "default".to_owned(),
        labels: BTreeMap::new(),
        cluster: "test".to_owned(),
        xds: Endpoint { host: "127.0.0.1".to_owned(), port: 0 },
        tls: None,
        protocol: Protocol::Delta,
        admin_port: 0,
    };
    Some(EnvoySetup { binary, bootstrap, concurrency: 2, drain_seconds: 5 })
}

impl EnvoySetup {
    pub fn node(mut self, id: &str) -> Self {
        self.bootstrap.node_id = id.to_owned();
        self
    }

    pub fn namespace(mut self, namespace: &str) -> Self {
        self.bootstrap.namespace = namespace.to_owned();
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.bootstrap.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.bootstrap.protocol = protocol;
        self
    }

    /// Speaks TLS to the control plane.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.bootstrap.tls = Some(tls);
        self
    }

    /// Worker threads, each with a VM of its own per plugin. Two unless said.
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Seconds until a drained connection is closed. Five unless said.
    pub fn drain_seconds(mut self, seconds: u32) -> Self {
        self.drain_seconds = seconds;
        self
    }

    /// What `wasmplane bootstrap` prints for it.
    pub fn bootstrap(&self, xds: SocketAddr) -> Bootstrap {
        Bootstrap { xds: Endpoint { host: xds.ip().to_string(), port: xds.port() }, ..self.bootstrap.clone() }
    }

    /// Starts it with what `wasmplane bootstrap` prints; its listeners come when the control plane sends them.
    pub async fn start(self, xds: SocketAddr) -> Envoy {
        let bootstrap = self.bootstrap(xds).to_string();
        self.start_with(&bootstrap).await
    }

    /// Starts it with a bootstrap of the test's own, whose admin port should be 0.
    pub async fn start_with(self, bootstrap: &str) -> Envoy {
        let (mut process, folder) = self.spawn(bootstrap);
        let address = folder.path().join(ADMIN_ADDRESS);
        let admin = wait_until("Envoy's admin address", async || {
            if let Err(error) = process.ensure_running() {
                panic!("{error}\n{}", process.last_words(30));
            }
            std::fs::read_to_string(&address).ok()?.trim().parse().ok()
        })
        .await;
        Envoy { process, admin, _folder: folder }
    }

    /// Starts it with a bootstrap that it must refuse: what it logged until it gave up.
    pub async fn log_of_a_failed_start(self, bootstrap: &str) -> String {
        let (mut process, _folder) = self.spawn(bootstrap);
        until_its_end(&mut process).await;
        process.log()
    }

    /// Starts it with a bootstrap on which it must end: how it did.
    pub async fn end_of_a_failed_start(self, bootstrap: &str) -> Ended {
        let (mut process, _folder) = self.spawn(bootstrap);
        until_its_end(&mut process).await
    }

    fn spawn(&self, bootstrap: &str) -> (LoggedProcess, TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, bootstrap).expect("the temporary folder is writable");
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(folder.path().join(ADMIN_ADDRESS));
        command.args(["--disable-hot-restart", "--drain-strategy", "immediate"]);
        command.arg("--drain-time-s").arg(self.drain_seconds.to_string());
        command.arg("--concurrency").arg(self.concurrency.to_string());
        let log = folder.path().join("envoy.log");
        (LoggedProcess::spawn("envoy", command, &log).expect("the binary can be run"), folder)
    }
}

async fn until_its_end(process: &mut LoggedProcess) -> Ended {
    wait_until("the end of an Envoy that cannot start", async || process.ensure_running().err()?.downcast().ok()).await
}

impl Envoy {
    /// The body of a page of the admin server, e.g. `/ready`.
    pub async fn admin_get(&self, path: &str) -> String {
        http::get(self.admin.port(), path).await.expect("Envoy's admin server answers").body
    }

    /// A command to the admin server, e.g. `/drain_listeners`.
    pub async fn admin_post(&self, path: &str) {
        let answer = http::post(self.admin.port(), path).await.expect("Envoy's admin server answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }

    /// A counter or gauge by its full name; 0 while Envoy does not have it.
    pub async fn stat(&self, name: &str) -> u64 {
        self.try_stat(name).await.expect("Envoy's admin server answers")
    }

    /// The same; `None` where the admin server does not answer.
    pub async fn try_stat(&self, name: &str) -> Option<u64> {
        let last = name.rsplit('.').next().unwrap_or(name);
        let page = http::get(self.admin.port(), &format!("/stats?filter={last}")).await.ok()?.body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(line.map_or(0, |value| value.parse().expect("counters and gauges are numbers")))
    }

    /// Whether it has ended, by itself or by a signal.
    pub fn has_ended(&mut self) -> bool {
        self.process.ensure_running().is_err()
    }

    /// All of `/config_dump`, with ECDS.
    pub async fn config_dump(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin_get("/config_dump").await).expect("Envoy writes JSON")
    }

    /// CPU time that it took so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.process.id().expect("it runs"))
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Panics, with its last words, if it has ended.
    pub fn assert_running(&mut self) {
        if let Err(error) = self.process.ensure_running() {
            panic!("{error}");
        }
    }

    /// Ends it and waits until its sockets are closed.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("a child can be killed");
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.last_words(40));
        }
    }
}

/// A file of `envoy-bootstrap/`, turned from its default ports to those of a test.
pub fn ready_bootstrap(file: &str, xds: SocketAddr, listener: u16, upstream: u16) -> String {
    let path = format!("{}/envoy-bootstrap/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    [(18000, xds.port()), (8080, listener), (9090, upstream), (9901, 0)]
        .into_iter()
        .fold(text, |text, (from, to)| text.replace(&format!("port_value: {from}}}"), &format!("port_value: {to}}}")))
}
