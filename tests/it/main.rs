//! Tests over sockets and with real Envoys, in one binary.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod ads;
