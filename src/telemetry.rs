//! Logs: human text on a terminal, JSON otherwise. `RUST_LOG` sets the filter, `info` is the default.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Installs the log subscriber, which writes to stderr. Called once, by commands that run for long.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.with_ansi(false).json().flatten_event(true).init();
    }
}
