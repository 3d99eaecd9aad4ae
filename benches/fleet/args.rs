//! The size of the fleet, from the command line.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;

/// Measures `wasmplane serve` with a fleet of simulated Envoys.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Proxies, each on a connection of its own.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one())]
    pub proxies: usize,
    /// Plugins on every proxy. Two more are on 1 % of the proxies, and on one of them.
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    pub plugins: usize,
    /// What the proxies say they can do.
    #[arg(long, value_enum, default_value_t = Mode::Chain)]
    pub mode: Mode,
    /// Size of each module.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub module_bytes: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 10, value_parser = at_least_one())]
    pub rounds: usize,
    /// Each proxy has a label that no other has, as pods of a StatefulSet do.
    #[arg(long)]
    pub unique_labels: bool,
    /// Threads of this process; the server has one per core.
    #[arg(long, default_value_t = 2)]
    pub client_threads: usize,
    /// Another build of the server, to compare with.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_wasmplane"))]
    pub server: PathBuf,
    /// `RUST_LOG` of the server.
    #[arg(long, default_value = "info")]
    pub server_log: String,
    /// Records the server with `perf` during the rounds that touch all proxies.
    #[arg(long, value_name = "FILE")]
    pub perf: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Envoy 1.39 and later: the plugins of a gap are one resource.
    Chain,
    /// Each plugin is a resource of its own.
    Filter,
}

impl Args {
    /// This process and the server each hold one end of every connection.
    pub fn warn_of_limits(&self) {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let limit = open_files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < self.proxies + 100) {
            println!(
                "{} proxies need more open files than the limit of {limit}: raise it with ulimit -n",
                self.proxies
            );
        }
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
