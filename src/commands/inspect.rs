//! `wasmplane inspect`: what a module is, and whether Envoy would take it.
//!
//! Comes in: a path or URL. Goes out: a report on stdout; the exit code says what Envoy would (0 takes it, 1 refuses it).

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Format, Outcome};
use crate::model::EnvoyVersion;
use crate::modules::inspect::{Export, Item};
use crate::modules::{Report, Verdict, download, inspect, read_file, releases};

/// What a module is, and whether Envoy would take it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, or an http(s) URL.
    #[arg(value_name = "URL|FILE")]
    module: String,

    /// The Envoy to judge for, as in 1.36 or 1.36.4 [default: the newest that is known].
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    envoy: Option<EnvoyVersion>,

    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let report = inspect(&fetch(&args.module)?);
    let release = judged_as(args.envoy);
    match args.format {
        Format::Text => print!("{}", text(&args.module, &report, release)),
        Format::Json => println!("{:#}", json(&args.module, &report, release)),
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

/// `1.36` means the newest of 1.36.
fn parse_version(text: &str) -> anyhow::Result<EnvoyVersion> {
    let parts: Vec<u32> = text
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.parse().map_err(|_| anyhow!("not a version such as 1.36 or 1.36.4")))
        .collect::<Result<_, _>>()?;
    match parts[..] {
        [major, minor] => Ok(EnvoyVersion::new(major, minor, u32::MAX)),
        [major, minor, patch] => Ok(EnvoyVersion::new(major, minor, patch)),
        _ => bail!("not a version such as 1.36 or 1.36.4"),
    }
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

fn text(module: &str, report: &Report, release: EnvoyVersion) -> String {
    let mut lines = vec![
        ("module", module.to_owned()),
        ("format", format(report)),
        ("sha256", report.digest.to_string()),
        ("size", size(report.size)),
    ];
    if !report.contents.imports.is_empty() {
        lines.push(("imports", wrap(&imports(report))));
    }
    if !report.contents.exports.is_empty() {
        lines.push(("exports", wrap(&exports(report))));
    }
    lines.extend(report.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.extend(verdict_lines(report, release).into_iter().map(|line| ("envoy", line)));
    lines.into_iter().map(|(name, value)| format!("{name:<9}{value}\n")).collect()
}

fn format(report: &Report) -> String {
    match report.abi {
        Some(abi) => format!("{}, proxy-wasm ABI {}", report.format.describe(), abi.replace('_', ".")),
        None => report.format.describe().to_owned(),
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB ({bytes} bytes)", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB ({bytes} bytes)", bytes as f64 / 1_048_576.0),
    }
}

/// `env: a b; wasi_snapshot_preview1: c`, one line per module that is imported from.
fn imports(report: &Report) -> Vec<String> {
    let mut modules: Vec<(&str, Vec<&str>)> = Vec::new();
    for import in &report.contents.imports {
        match modules.iter_mut().find(|(module, _)| *module == import.module) {
            Some((_, names)) => names.push(&import.name),
            None => modules.push((&import.module, vec![&import.name])),
        }
    }
    modules.into_iter().map(|(module, names)| format!("{module}: {}", names.join(" "))).collect()
}

/// What Envoy looks at; a toolchain's own exports are only counted.
fn exports(report: &Report) -> Vec<String> {
    let is_of_note = |export: &&Export| {
        let names = ["malloc", "_start", "_initialize", "main"];
        export.name.starts_with("proxy_")
            || names.contains(&export.name.as_str())
            || matches!(export.item, Item::Memory { .. })
    };
    let of_note: Vec<&str> =
        report.contents.exports.iter().filter(is_of_note).map(|export| export.name.as_str()).collect();
    let others = report.contents.exports.len() - of_note.len();
    let rest = (others > 0).then(|| format!("and {others} more"));
    [of_note.join(" ")].into_iter().filter(|line| !line.is_empty()).chain(rest).collect()
}

/// Continues under the first line.
fn wrap(lines: &[String]) -> String {
    lines.join(&format!("\n{:9}", ""))
}

/// The verdict of the release asked for, then the releases that say something else.
fn verdict_lines(report: &Report, release: EnvoyVersion) -> Vec<String> {
    let asked = verdict(report, release);
    let say = |release: EnvoyVersion, verdict: &Verdict| match verdict {
        Verdict::Accepted => format!("{release} takes it"),
        Verdict::Refused(reason) => format!("{release} refuses it: {reason}"),
    };
    let others = report.verdicts.iter().rev().filter(|(_, verdict)| verdict != asked);
    let differing = others.map(|(release, verdict)| format!("but {}", say(*release, verdict)));
    [say(release, asked)].into_iter().chain(differing).collect()
}

fn json(module: &str, report: &Report, release: EnvoyVersion) -> Value {
    let contents = &report.contents;
    let imports = contents
        .imports
        .iter()
        .map(|import| json!({"module": import.module, "name": import.name, "type": import.item.to_string()}));
    let exports = contents.exports.iter().map(|export| json!({"name": export.name, "type": export.item.to_string()}));
    let verdicts = report.verdicts.iter().map(|(release, verdict)| json_verdict(*release, verdict));
    json!({
        "module": module,
        "format": report.format.describe(),
        "sha256": report.digest.to_string(),
        "size": report.size,
        "abi": report.abi.map(|abi| abi.replace('_', ".")),
        "hasStart": contents.has_start,
        "customSections": contents.custom_sections,
        "imports": imports.collect::<Vec<_>>(),
        "exports": exports.collect::<Vec<_>>(),
        "warnings": report.warnings,
        "verdict": json_verdict(release, verdict(report, release)),
        "verdicts": verdicts.collect::<Vec<_>>(),
    })
}

fn json_verdict(release: EnvoyVersion, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Accepted => json!({"envoy": release.to_string(), "accepted": true}),
        Verdict::Refused(reason) => json!({"envoy": release.to_string(), "accepted": false, "reason": reason}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = r#"(module
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
    fn the_text_says_what_an_operator_asks() {
        let report = inspect(&wat::parse_str(MODULE).unwrap());
        let expected = format!(
            "module   a.wasm\n\
             format   a WebAssembly module, proxy-wasm ABI 0.2.1\n\
             sha256   {}\n\
             size     {} bytes\n\
             imports  env: proxy_log\n         wasi_snapshot_preview1: fd_sync\n\
             exports  memory proxy_abi_version_0_2_1 _initialize proxy_on_memory_allocate proxy_on_tick\n         and 1 more\n\
             envoy    1.40.0 takes it\n\
             envoy    but 1.37.0 refuses it: imports wasi_snapshot_preview1.fd_sync, which this Envoy does not provide (1.39.3 does)\n\
             envoy    but 1.36.4 refuses it: imports wasi_snapshot_preview1.fd_sync, which this Envoy does not provide (1.39.3 does)\n",
            report.digest, report.size
        );
        assert_eq!(text("a.wasm", &report, judged_as(None)), expected);
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
            assert_eq!(judged_as(Some(parse_version(text).unwrap())).to_string(), release, "{text}");
        }
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
