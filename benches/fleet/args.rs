//! The size of the fleet, from the command line.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;

/// Measures `wasmplane serve` with a fleet of simulated Envoys.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// All that `docs/performance.md` shows, one after the other; says proxies, plugins and mode by itself.
    #[arg(long)]
    pub suite: bool,
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
    /// Records the server with `perf` during the rounds that touch all proxies, and the null server in FILE.null.
    #[arg(long, value_name = "FILE")]
    pub perf: Option<PathBuf>,
    /// What this program runs beside the server: the null server, with its folder.
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub null_server: Option<PathBuf>,
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

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Filter => "filter",
        }
    }
}

impl Args {
    /// What is to be run.
    pub fn scenarios(&self) -> Vec<Self> {
        if !self.suite {
            return vec![self.clone()];
        }
        let chain = [(1000, 1), (1000, 100), (5000, 1), (5000, 100), (9000, 1), (1000, 1000)];
        let chain = chain.map(|(proxies, plugins)| Self { proxies, plugins, mode: Mode::Chain, ..self.clone() });
        let filter = Self { proxies: 1000, plugins: 100, mode: Mode::Filter, ..self.clone() };
        let unlike = Self { unique_labels: true, mode: Mode::Chain, ..filter.clone() };
        chain.into_iter().chain([filter, unlike]).collect()
    }

    /// This process holds one end of every connection to either server.
    pub fn warn_of_limits(&self) {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let limit = open_files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < 2 * self.proxies + 100) {
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
