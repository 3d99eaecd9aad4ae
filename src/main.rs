//! The `wasmplane` binary: reads the command line and runs one command.

use std::process::ExitCode;

use clap::Parser as _;
use wasmplane::config::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    rustls::crypto::ring::default_provider().install_default().expect("nothing else installed a provider before main");
    match wasmplane::commands::run(cli.command) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("wasmplane: {error:#}");
            ExitCode::from(2)
        }
    }
}
