//! `wasmplane inspect`: what a module is, and whether Envoy would take it.
//!
//! Comes in: a path or URL. Goes out: a report on stdout; the exit code says what Envoy would (0 takes it, 1 refuses it).

mod json;
mod judged;
mod text;

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;

use self::judged::{AskedVersion, Judged, parse_version};
use super::{Format, Outcome};
use crate::model::EnvoyVersion;
use crate::modules::{Report, Verdict, download, inspect, read_file};

/// What a module is, and whether Envoy would take it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, or an http(s) URL.
    #[arg(value_name = "URL|FILE")]
    module: String,

    /// The Envoy to judge for, as in 1.36 or 1.36.4 [default: the newest that is known].
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    envoy: Option<AskedVersion>,

    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let report = inspect(&fetch(&args.module)?);
    let judged = Judged::of(args.envoy.as_ref());
    match args.format {
        Format::Text => print!("{}", text::render(&args.module, &report, &judged)),
        Format::Json => println!("{:#}", json::render(&args.module, &report, &judged)),
    }
    match verdict(&report, judged.release) {
        Verdict::Accepted => Ok(Outcome::Fine),
        Verdict::Refused(_) => Ok(Outcome::Finding),
    }
}

fn fetch(module: &str) -> anyhow::Result<Bytes> {
    if let Some(path) = module.strip_prefix("file://") {
        return Ok(read_file(Path::new(path))?);
    }
    match module.split_once("://") {
        None => Ok(read_file(Path::new(module))?),
        Some(("http" | "https", _)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Ok(runtime.context("no runtime for the download")?.block_on(download(module))?)
        }
        Some(("oci", _)) => {
            bail!("oci images are not supported yet by this version: name the module's file or http(s) URL")
        }
        Some((scheme, _)) => bail!("{module}: unknown scheme {scheme}: name a file, or an http(s) URL"),
    }
}

fn verdict(report: &Report, release: EnvoyVersion) -> &Verdict {
    let found = report.verdicts.iter().find(|(judged, _)| *judged == release);
    found.map(|(_, verdict)| verdict).expect("a report has a verdict for each known release")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub const MODULE: &str = r#"(module
        (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_sync" (func (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "_initialize")) (func (export "__internal"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0)
        (func (export "proxy_on_tick") (param i32)))"#;

    fn run_on(content: &[u8], envoy: Option<&str>) -> Outcome {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let module = file.path().display().to_string();
        run(Args { module, envoy: envoy.map(|text| parse_version(text).unwrap()), format: Format::Json }).unwrap()
    }

    #[test]
    fn the_exit_code_is_that_of_the_release_asked_for() {
        let module = wat::parse_str(MODULE).unwrap();
        assert_eq!(run_on(&module, None), Outcome::Fine);
        assert_eq!(run_on(&module, Some("1.36")), Outcome::Finding);
        assert_eq!(run_on(b"text", None), Outcome::Finding);
    }

    #[test]
    fn what_cannot_be_had_is_an_error_with_its_name() {
        let error = |module: &str| fetch(module).unwrap_err().to_string();
        assert_eq!(error("/no/such.wasm"), "/no/such.wasm: No such file or directory (os error 2)");
        assert_eq!(error("file:///no/such.wasm"), error("/no/such.wasm"));
        assert!(error("oci://ghcr.io/x/y:1").starts_with("oci images are not supported yet"));
        assert!(error("ftp://x/y").starts_with("ftp://x/y: unknown scheme ftp"));
    }
}
