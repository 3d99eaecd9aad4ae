//! Modules.

pub mod inspect;

pub use inspect::{Report, inspect, releases};
