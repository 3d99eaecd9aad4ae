//! One file per command: its arguments, and what it prints.

mod admin_client;
pub mod bootstrap;
pub mod diff;
pub mod explain;
pub mod folders;
pub mod inspect;
pub mod network;
pub mod plugins;
mod progress;
pub mod proxies;
pub mod push;
pub mod quickstart;
mod release;
pub mod serve;
mod table;
pub mod validate;

use std::process::ExitCode;

use clap::ValueEnum;

use crate::config::Command;
use crate::protobuf::admin::{Mode, State};

/// How a command prints what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What a command says to the shell. An `Err` is wrong usage, or nobody there: exit code 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0.
    Fine,
    /// 1: the command worked and found something wrong.
    Finding,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Fine => Self::SUCCESS,
            Outcome::Finding => Self::from(1),
        }
    }
}

/// Runs one command to its end.
pub fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Validate(args) => validate::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Push(args) => push::run(args),
        Command::Bootstrap(args) => bootstrap::run(args),
        Command::Quickstart(args) => quickstart::run(args),
        Command::Proxies(args) => proxies::run(args),
        Command::Plugins(args) => plugins::run(args),
    }
}

/// A label as command lines have it.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE, and the key is not empty".to_owned()),
    }
}

/// A plugin's state on a proxy, as the documentation spells it.
fn state_name(state: State) -> &'static str {
    match state {
        State::Unspecified => "Unknown",
        State::NotLoaded => "NotLoaded",
        State::Pending => "Pending",
        State::Programmed => "Programmed",
        State::Rejected => "Rejected",
        State::StandIn => "StandIn",
        State::Unsupported => "Unsupported",
    }
}

/// How plugins reach a proxy, as the documentation spells it.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "unknown",
        Mode::Chain => "chain",
        Mode::Filter => "filter",
        Mode::NoWasm => "no-wasm",
    }
}

/// `90s`, `30m`, `1h 30m`: for flags.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|error| format!("{error}; a duration is written as in 90s, 30m or 1h 30m"))?;
    let duration = std::time::Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}
