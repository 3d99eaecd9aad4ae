//! The command line: one subcommand per task, each with the arguments that its own file defines.

use clap::{Parser, Subcommand};

use crate::commands;

/// An Envoy xDS control plane that delivers WebAssembly plugins to fleets of Envoys.
#[derive(Debug, Parser)]
#[command(name = "wasmplane", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(Box<commands::serve::Args>),
    Validate(commands::validate::Args),
    Explain(commands::explain::Args),
    Diff(commands::diff::Args),
    Inspect(commands::inspect::Args),
    Push(commands::push::Args),
    Bootstrap(commands::bootstrap::Args),
    Quickstart(commands::quickstart::Args),
    Proxies(commands::proxies::Args),
    Plugins(commands::plugins::Args),
}
