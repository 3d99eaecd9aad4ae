//! The server under measurement: started, watched from outside through /proc, killed on drop.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::args::Args;

const START_WITHIN: Duration = Duration::from_secs(60);
/// `USER_HZ`, the unit of CPU times in /proc: 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

pub struct Server {
    process: Child,
    pub xds: SocketAddr,
    admin: SocketAddr,
}

/// User and system time of the process so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost(Duration);

impl Cost {
    pub fn since(self, before: Self) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

impl Server {
    pub fn start(folder: &Path, args: &Args) -> anyhow::Result<Self> {
        let below = |name| folder.join(name);
        let mut process = Command::new(&args.server)
            .arg("serve")
            .args(["--xds-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--config".as_ref(), below("config").as_os_str()])
            .args(["--module-files".as_ref(), below("modules").as_os_str()])
            .args(["--data-dir".as_ref(), below("data").as_os_str()])
            .env("RUST_LOG", &args.server_log)
            .stderr(Stdio::piped())
            .spawn()
            .context("the server starts")?;
        let stderr = process.stderr.take().context("stderr is a pipe")?;
        let (sender, addresses) = mpsc::channel();
        // Reads to the end, as a full pipe would stop the server.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "listening" {
                    let address = event["address"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                    // Nobody listens for more than the first two.
                    let _ = sender.send((event["service"] == "xds", address));
                } else if event["level"] == "WARN" || event["level"] == "ERROR" || event.is_null() {
                    println!("server: {line}");
                }
            }
        });
        let mut server = Self { process, xds: SocketAddr::from(([0; 4], 0)), admin: SocketAddr::from(([0; 4], 0)) };
        for _ in 0..2 {
            match addresses.recv_timeout(START_WITHIN).context("the server says where it listens")? {
                (true, Some(address)) => server.xds = address,
                (false, Some(address)) => server.admin = address,
                (_, None) => bail!("the server named no address"),
            }
        }
        Ok(server)
    }

    /// Until all plugins have their modules.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        loop {
            let mut socket = tokio::net::TcpStream::connect(self.admin).await?;
            socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: wasmplane\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn cost(&self) -> anyhow::Result<Cost> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field is the name in brackets; utime and stime are the 14th and 15th.
        let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat has a name in brackets")?;
        let mut times = rest.split(' ').skip(11).map_while(|field| field.parse::<u32>().ok());
        let ticks = times.next().context("utime")? + times.next().context("stime")?;
        Ok(Cost(TICK * ticks))
    }

    pub fn resident_kb(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Records until the value is dropped.
    pub fn profile(&self, args: &Args) -> Option<Profile> {
        let file = args.perf.as_ref()?;
        let perf = Command::new("perf")
            .args(["record", "-q", "-F", "997", "-g", "--pid", &self.process.id().to_string(), "-o"])
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
