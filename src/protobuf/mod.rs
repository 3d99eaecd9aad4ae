//! Generated code and descriptors: the admin API, and Envoy's messages by reflection.
//!
//! Comes in: JSON in protobuf's mapping, or encoded messages. Goes out: the other of the two.
//! Invariant: no IO; unknown fields are errors, never dropped.

mod check;
mod envoy;
mod faults;
mod refusal;
mod rules;
mod suggestion;
mod walk;

pub use envoy::{InvalidMessage, Violation, from_json, to_json};
pub use faults::faults;
pub use suggestion::did_you_mean;
pub use walk::{Part, walk};

/// The admin API, generated from `proto/wasmplane/admin/v1/admin.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, missing_debug_implementations)]
pub mod admin {
    tonic::include_proto!("wasmplane.admin.v1");

    /// For gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.fds"));
}
