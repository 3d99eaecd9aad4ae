//! `wasmplane inspect`.

use super::Outcome;

/// What a module is, and whether Envoy would take it.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
