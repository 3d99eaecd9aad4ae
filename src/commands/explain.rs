//! `wasmplane explain`.

use super::Outcome;

/// Which plugins a given proxy gets on which listener, in which order, and why the others do not apply.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    anyhow::bail!("not built yet")
}
