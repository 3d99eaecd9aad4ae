//! A child process whose output goes to a file, so that its last words can be shown when something fails.
//!
//! Dropping it kills it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

/// A running program, and the file that holds what it printed.
#[derive(Debug)]
pub struct LoggedProcess {
    name: String,
    child: Child,
    log: PathBuf,
}

/// It ended, which it never should by itself.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended ({status})")]
pub struct Ended {
    pub name: String,
    pub status: ExitStatus,
}

impl LoggedProcess {
    /// Starts the program; what it prints is appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> std::io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        Ok(Self { name: name.to_owned(), child: command.spawn()?, log: log.to_owned() })
    }

    /// `None` once it has ended and was waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(Ended { name: self.name.clone(), status }.into()),
            None => Ok(()),
        }
    }

    /// Kills it and waits until it is gone. It may have ended already.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// All that it printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its name, and the last lines that it printed.
    pub fn last_words(&self, lines: usize) -> String {
        let log = self.log();
        let lines_of_log: Vec<&str> = log.lines().collect();
        let tail = &lines_of_log[lines_of_log.len().saturating_sub(lines)..];
        format!("--- the last of {} lines of {}:\n{}\n", lines_of_log.len(), self.name, tail.join("\n"))
    }
}

/// Where a `wasmplane serve` listens, from its JSON log: the newest line `"message":"listening"` of this service.
pub fn listening(log: &str, service: &str) -> Option<SocketAddr> {
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut listening = lines.filter(|line| line["message"] == "listening" && line["service"] == service);
    listening.next()?["address"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_address_of_a_service_counts() {
        let log = r#"{"timestamp":"t","level":"INFO","message":"listening","service":"xds","address":"127.0.0.1:1"}
not json
{"level":"INFO","message":"listening","service":"admin","address":"[::1]:2"}
{"level":"INFO","message":"listening","service":"xds","address":"127.0.0.1:3"}
{"level":"INFO","message":"listening","service":"xds","addr"#;
        assert_eq!(listening(log, "xds"), Some("127.0.0.1:3".parse().unwrap()));
        assert_eq!(listening(log, "admin"), Some("[::1]:2".parse().unwrap()));
        assert_eq!(listening(log, "modules"), None);
    }

    #[tokio::test]
    async fn the_last_words_of_a_dead_process_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let mut process = LoggedProcess::spawn("a shell", command, &folder.path().join("log")).unwrap();
        process.wait().await.unwrap();
        assert_eq!(process.ensure_running().unwrap_err().to_string(), "a shell ended (exit status: 3)");
        assert_eq!(process.last_words(1), "--- the last of 2 lines of a shell:\ntwo\n");
    }
}
