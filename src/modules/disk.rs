//! How the store writes.

pub use crate::disk::{UNFINISHED, write_whole};
