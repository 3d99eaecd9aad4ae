//! wasmplane, an Envoy xDS control plane that delivers WebAssembly plugins to fleets of Envoys.
//!
//! ```text
//!   6  main ── config, telemetry, commands
//!   5  plane                joins the rooms; the only place that spawns long tasks
//!   4  rollout              what became of each push, per plugin and proxy
//!   3  xds                  serves snapshots; knows nothing of plugins
//!   2  sources   modules   compile      three neighbours that never import one another
//!   1  snapshot             Resource, Version, Snapshot
//!   0  model, protobuf      the words of the domain; generated code and descriptors
//!      disk                 files that are whole or not there
//! ```
//!
//! A room imports only rooms on lower lines (`tests/it/architecture.rs` fails on one that does not). Data goes one way:
//! sources → model → modules → compile → snapshot → xds → rollout → status, with one loop: what proxies refused comes
//! back from rollout through plane into compile.
//!
//! What this crate does not do: route traffic, run Wasm, or talk to a registry on a proxy's behalf while it waits.

pub mod commands;
pub mod compile;
pub mod config;
pub mod disk;
pub mod model;
pub mod modules;
pub mod plane;
pub mod protobuf;
pub mod rollout;
pub mod snapshot;
pub mod sources;
pub mod telemetry;
pub mod xds;
