//! `wasmplane inspect`: what a module is, and whether Envoy would take it.
//!
//! Comes in: a path or URL. Goes out: a report on stdout; the exit code says what Envoy would (0 takes it, 1 refuses it).

mod json;
mod text;

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;

use super::{Format, Outcome};
use crate::model::EnvoyVersion;
use crate::modules::{Report, Verdict, download, inspect, read_file, releases};

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
    let release = judged_as(args.envoy.as_ref().map(|asked| asked.version));
    match args.format {
        Format::Text => {
            print!("{}", text::render(&args.module, &report, release));
            print!("{}", args.envoy.and_then(|asked| stand_in(&asked, release)).unwrap_or_default());
        }
        Format::Json => println!("{:#}", json::render(&args.module, &report, release)),
    }
    match verdict(&report, release) {
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

/// `--envoy`: `1.36` means the newest of 1.36.
#[derive(Clone, Debug)]
struct AskedVersion {
    text: String,
    version: EnvoyVersion,
}

fn parse_version(text: &str) -> anyhow::Result<AskedVersion> {
    let text = text.trim_start_matches('v');
    let numbers = text.split('.').map(|part| part.parse().map_err(|_| anyhow!(NOT_A_VERSION)));
    let version = match numbers.collect::<Result<Vec<u32>, _>>()?[..] {
        [major, minor] => EnvoyVersion::new(major, minor, u32::MAX),
        [major, minor, patch] => EnvoyVersion::new(major, minor, patch),
        _ => bail!(NOT_A_VERSION),
    };
    Ok(AskedVersion { text: text.to_owned(), version })
}

const NOT_A_VERSION: &str = "not a version such as 1.36 or 1.36.4";

/// Said where another release had to stand for the one asked for.
fn stand_in(asked: &AskedVersion, release: EnvoyVersion) -> Option<String> {
    let is_that_one = release == asked.version || release.to_string().starts_with(&format!("{}.", asked.text));
    (!is_that_one)
        .then(|| format!("note     {} is judged as {release}, the nearest release that was measured\n", asked.text))
}

/// The known release that stands for a version: the newest one that is not newer, else the oldest.
fn judged_as(version: Option<EnvoyVersion>) -> EnvoyVersion {
    let known = releases();
    let found = match version {
        None => known.last(),
        Some(version) => known.iter().rev().find(|release| **release <= version).or(known.first()),
    };
    *found.expect("the table of releases is not empty")
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
    fn a_version_is_judged_as_the_newest_known_release_that_is_not_newer() {
        let cases =
            [("1.36", "1.36.4"), ("1.38.3", "1.37.0"), ("v1.40.1", "1.40.0"), ("2.0", "1.40.0"), ("1.20", "1.36.4")];
        for (text, release) in cases {
            assert_eq!(judged_as(Some(parse_version(text).unwrap().version)).to_string(), release, "{text}");
        }
        let note =
            |text: &str| stand_in(&parse_version(text).unwrap(), judged_as(Some(parse_version(text).unwrap().version)));
        assert_eq!((note("1.36"), note("1.40.0")), (None, None));
        assert!(note("1.38").unwrap().starts_with("note     1.38 is judged as 1.37.0"));
        for text in ["", "1", "1.x", "1.2.3.4"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
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
