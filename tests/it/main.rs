//! Tests over sockets and with real Envoys, in one binary. `support` starts what they need.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod listener_bytes;
