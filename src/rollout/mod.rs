//! What became of each push, per plugin and proxy.
//!
//! Comes in: what a proxy is to run (`Compiled`) and what it answered (`Delivery`). Goes out: a [`PluginState`] per
//! plugin and proxy, counts per plugin, and which plugin revision a refusal is to be blamed on.
//! Invariant: pure folding; decides nothing about what is sent.

mod accepted;
mod blame;
mod hunt;
mod progress;
mod refusals;
mod resources;
mod state;
mod status;

pub use progress::{Folded, Progress};
pub use resources::ResourceStatus;
pub use status::{Counts, PluginState, PluginSummary, StateKind};
