//! A fleet of simulated Envoys around one `wasmplane serve`: what a change costs and how long it takes, beside a server
//! that writes the same bytes to as many streams and does nothing else.
//!
//! Comes in: the size of the fleet. Goes out: tables on stdout. No figure is asserted; `README.md` says how to run it.

mod args;
mod class;
mod fleet;
mod manifests;
mod message;
mod node;
mod null;
mod proxy;
mod scenario;
mod server;
mod side;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.null_server {
        Some(folder) => null::run(folder),
        None => measure(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the run ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let scenarios = args.scenarios();
    scenarios.iter().for_each(Args::warn_of_limits);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.client_threads).enable_all().build()?;
    for scenario in scenarios {
        runtime.block_on(scenario::run(&scenario))?.print();
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
