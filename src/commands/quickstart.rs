//! `wasmplane quickstart`.

use super::Outcome;

/// Runs the main job on loopback: an upstream, an Envoy and the control plane with an example plugin.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
