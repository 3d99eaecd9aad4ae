//! Tests over sockets and with real Envoys, in one binary. `support` starts what they need.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod ads;
mod architecture;
mod compile_golden;
mod compile_outline;
mod documents;
mod examples;
mod faults;
mod http_proxy;
mod inspect_images;
mod listener_bytes;
mod real_bootstraps;
mod real_csds;
mod real_digest;
mod real_fleet;
mod real_hitless;
mod real_images;
mod real_lifecycle;
mod real_load;
mod real_memory;
mod real_messages;
mod real_native;
mod real_plugins;
mod real_program;
mod real_push;
mod real_questions;
mod real_refusals;
mod real_registry;
mod real_releases;
mod real_restart;
mod real_tls;
mod real_trouble;
mod real_verdicts;
mod real_wasmplugin;
mod support;
mod support_selftest;
mod vectors;
