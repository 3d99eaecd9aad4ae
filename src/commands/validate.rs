//! `wasmplane validate`.

use super::Outcome;

/// Checks manifests offline: every fault with file, line and field path.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
