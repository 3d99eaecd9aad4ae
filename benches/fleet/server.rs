//! A server under measurement: started, watched from outside through /proc, killed on drop.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::args::Args;

const START_WITHIN: Duration = Duration::from_secs(60);

pub struct Server {
    process: Child,
    pub xds: SocketAddr,
    /// The null server has none.
    admin: Option<SocketAddr>,
    /// Time on a processor by thread; those that have ended keep theirs.
    threads: Mutex<HashMap<String, Duration>>,
}

/// Time that the process has spent on a processor so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost(Duration);

impl Cost {
    pub fn total(self) -> Duration {
        self.0
    }

    pub fn since(self, before: Self) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

impl Server {
    pub fn control_plane(folder: &Path, args: &Args) -> anyhow::Result<Self> {
        let below = |name| folder.join(name);
        let mut command = Command::new(&args.server);
        command
            .arg("serve")
            .args(["--xds-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            // These clients fetch nothing: large modules travel inside, as the tables say.
            .args(["--module-delivery", "inline"])
            .args(["--config".as_ref(), below("config").as_os_str()])
            .args(["--module-files".as_ref(), below("modules").as_os_str()])
            .args(["--data-dir".as_ref(), below("data").as_os_str()])
            .env("RUST_LOG", &args.server_log);
        Self::start(command, true)
    }

    /// This very program, as the null server.
    pub fn null(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--null-server").arg(folder);
        Self::start(command, false)
    }

    fn start(mut command: Command, has_admin: bool) -> anyhow::Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("the server starts")?;
        let stderr = process.stderr.take().context("stderr is a pipe")?;
        let (sender, addresses) = mpsc::channel();
        // Reads to the end, as a full pipe would stop the server.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "listening" {
                    let address = event["address"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                    // Nobody listens for more than it needs.
                    let _ = sender.send((event["service"].as_str().unwrap_or_default().to_owned(), address));
                } else if event["level"] == "WARN" || event["level"] == "ERROR" || event.is_null() {
                    println!("server: {line}");
                }
            }
        });
        // From here on it is killed on drop.
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut server = Self { process, xds: nowhere, admin: None, threads: Mutex::default() };
        while server.xds == nowhere || server.admin.is_none() && has_admin {
            let (service, address) =
                addresses.recv_timeout(START_WITHIN).context("the server says where it listens")?;
            let address = address.context("the server names no address")?;
            match &service[..] {
                "xds" => server.xds = address,
                "admin" => server.admin = Some(address),
                _ => {}
            }
        }
        Ok(server)
    }

    /// Until all plugins have their modules.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let admin = self.admin.context("the null server is always ready")?;
        loop {
            let mut socket = tokio::net::TcpStream::connect(admin).await?;
            socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: wasmplane\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A line for its stdin.
    pub fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.process.stdin.as_mut().context("stdin is a pipe")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// From the scheduler, as utime and stime count in steps of 10 ms.
    pub fn cost(&self) -> anyhow::Result<Cost> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let thread = thread?;
            // One that has ended since the folder was listed.
            let Ok(stat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanoseconds = stat.split(' ').next().and_then(|field| field.parse().ok()).context("schedstat")?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), Duration::from_nanos(nanoseconds));
        }
        Ok(Cost(threads.values().sum()))
    }

    pub fn resident_kb(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Records until the value is dropped.
    pub fn profile(&self, file: &Path) -> Option<Profile> {
        let perf = Command::new("perf")
            // Not cycles, which virtual machines often lack, nor frame pointers, which release builds lack.
            .args(["record", "-q", "-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf,8192"])
            .args(["--pid", &self.process.id().to_string(), "-o"])
            .arg(file)
            .spawn();
        perf.inspect_err(|error| println!("no perf: {error}")).ok().map(Profile)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A running `perf record`, which writes its file when it is interrupted.
pub struct Profile(Child);

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
