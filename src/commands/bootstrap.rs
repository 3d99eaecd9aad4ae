//! `wasmplane bootstrap`.

use super::Outcome;

/// Prints an Envoy bootstrap for a node id, namespace and labels.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
