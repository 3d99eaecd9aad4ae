//! `wasmplane push`: publishes a module to a registry.
//!
//! Comes in: a file and a reference. Goes out: the reference with the digest of what is there now. A module that no known
//! Envoy would take is not published, as nobody could run it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::network::NetworkArgs;
use super::progress::Bar;
use super::{Format, Outcome};
use crate::model::{ModuleLocation, Position};
use crate::modules::image::{Composed, ManifestDefaults, Recipe, compose};
use crate::modules::{Fetched, NetworkSettings, Pushed, Report, Upload, fetch_once, inspect, push, unusable_proxies};

/// Publishes a module to a registry.
///
/// As a CNCF Wasm artifact, unless told otherwise. Credentials are those of `docker login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The module, or one that is packed in gzip, zstd or tar.
    file: PathBuf,

    /// Where to: host[:port]/repository[:tag].
    #[arg(value_name = "REF")]
    reference: String,

    /// As a container image with plugin.wasm, which Istio and Envoy Gateway read as well.
    #[arg(long, conflicts_with = "maistra")]
    compat: bool,

    /// As a Maistra extension image, with manifest.yaml: see --manifest, or --phase and --priority.
    #[arg(long)]
    maistra: bool,

    /// The manifest.yaml to put into the image.
    #[arg(long, value_name = "FILE", requires = "maistra", conflicts_with_all = ["phase", "priority", "name"])]
    manifest: Option<PathBuf>,

    /// Default phase: PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats or PostStats.
    #[arg(long, requires = "maistra", value_parser = parse_phase)]
    phase: Option<Position>,

    /// Default priority; higher goes first.
    #[arg(long, requires = "maistra", allow_negative_numbers = true)]
    priority: Option<i32>,

    /// Name in the manifest.
    #[arg(long, requires = "maistra")]
    name: Option<String>,

    /// Publish it although no known Envoy would take it.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    network: NetworkArgs,

    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.reference.contains('@') {
        bail!("{}: a digest cannot be chosen, it comes from what is pushed: name a tag", args.reference);
    }
    if args.reference.trim_start_matches("oci://").contains("://") {
        bail!("{}: not an image reference such as registry.example.com/team/plugin:v1", args.reference);
    }
    let network = args.network.settings()?;
    let recipe = recipe(&args)?;
    unusable_proxies().iter().for_each(|said| eprintln!("warning  {said}"));
    let runtime = tokio::runtime::Runtime::new().context("no runtime for the transfer")?;
    let nothing_to_show = Arc::new(|_| {});
    let location = ModuleLocation::File(args.file.clone());
    let fetched = runtime.block_on(fetch_once(&location, NetworkSettings::default(), nothing_to_show))?;
    let report = inspect(&fetched.module);
    if let Some(reason) = report.refusal_by_all().filter(|_| !args.force) {
        print(args.format, &refused_text(&args, reason), || json!({"refused": reason}));
        return Ok(Outcome::Finding);
    }
    let Composed { media_type, manifest, blobs } = compose(&fetched.module, &recipe)?;
    let bar = Bar::new("pushing");
    let pushing = push(&args.reference, network, Upload { blobs, manifest, media_type }, bar.watch());
    let pushed = runtime.block_on(pushing)?;
    drop(bar);
    print(args.format, &text(&pushed, &report, &recipe), || json(&pushed, &report, &recipe));
    warn(&fetched, &report);
    Ok(Outcome::Fine)
}

fn parse_phase(text: &str) -> Result<Position, String> {
    Position::parse(text)
        .filter(|position| *position != Position::BeforeRouter)
        .ok_or_else(|| "one of PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats, PostStats".to_owned())
}

fn recipe(args: &Args) -> anyhow::Result<Recipe> {
    if args.compat {
        return Ok(Recipe::Compat);
    }
    if !args.maistra {
        return Ok(Recipe::Cncf);
    }
    let manifest = match (&args.manifest, args.phase, args.priority) {
        (Some(path), ..) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            ManifestDefaults::parse(text.as_bytes()).with_context(|| path.display().to_string())?;
            text
        }
        (None, Some(phase), Some(priority)) => manifest(args.name.as_deref(), phase, priority),
        _ => bail!("--maistra needs --manifest FILE, or --phase and --priority"),
    };
    Ok(Recipe::Maistra { manifest })
}

/// With the module where Istio finds it as well.
fn manifest(name: Option<&str>, phase: Position, priority: i32) -> String {
    // JSON's strings are YAML's.
    let name = name.map(|name| format!("name: {}\n", Value::from(name))).unwrap_or_default();
    format!("schemaVersion: 1\n{name}phase: {}\npriority: {priority}\nmodule: plugin.wasm\n", phase.as_str())
}

fn print(format: Format, text: &str, json: impl FnOnce() -> Value) {
    match format {
        Format::Text => print!("{text}"),
        Format::Json => println!("{:#}", json()),
    }
}

fn refused_text(args: &Args, reason: &str) -> String {
    format!("not pushed: no Envoy would take {}: {reason}\n", args.file.display())
}

fn text(pushed: &Pushed, report: &Report, recipe: &Recipe) -> String {
    format!(
        "pushed   {}\nlayout   {}\nsha256   {}\nsize     {} bytes\n",
        pinned(pushed),
        layout(recipe),
        report.digest,
        report.size
    )
}

fn json(pushed: &Pushed, report: &Report, recipe: &Recipe) -> Value {
    json!({
        "reference": pinned(pushed),
        "digest": format!("sha256:{}", pushed.digest),
        "layout": layout(recipe),
        "sha256": report.digest.to_string(),
        "size": report.size,
    })
}

/// As `spec.url` takes it.
fn pinned(pushed: &Pushed) -> String {
    format!("oci://{}@sha256:{}", pushed.reference, pushed.digest)
}

fn layout(recipe: &Recipe) -> &'static str {
    match recipe {
        Recipe::Cncf => "cncf",
        Recipe::Compat => "compat",
        Recipe::Maistra { .. } => "maistra",
    }
}

/// Beside the result, which programs read.
fn warn(fetched: &Fetched, report: &Report) {
    for warning in fetched.warnings.iter().chain(&report.warnings) {
        eprintln!("warning  {warning}");
    }
    if let Some(reason) = report.refusal_by_all() {
        eprintln!("warning  no known Envoy takes it: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(flags: &[&str]) -> Result<Args, String> {
        let line = ["push"].iter().chain(flags).chain(&["/a.wasm", "r.test/a:1"]);
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_made_of_flags_is_one_that_is_read() {
        let flags = ["--maistra", "--phase", "PreStats", "--priority", "-7", "--name", "it's: \"mine\"\n#"];
        let Ok(Recipe::Maistra { manifest }) = recipe(&parsed(&flags).unwrap()) else { panic!() };
        let read = ManifestDefaults::parse(manifest.as_bytes()).unwrap();
        assert_eq!((read.phase, read.priority, read.module.as_str()), (Position::PreStats, -7, "plugin.wasm"));
        assert_eq!((read.name.as_deref(), read.warnings.as_slice()), (Some("it's: \"mine\"\n#"), &[][..]));
    }

    #[test]
    fn a_maistra_image_needs_its_defaults() {
        let needs = "--maistra needs --manifest FILE, or --phase and --priority";
        assert_eq!(recipe(&parsed(&["--maistra"]).unwrap()).unwrap_err().to_string(), needs);
        assert_eq!(recipe(&parsed(&["--maistra", "--phase", "PreAuthN"]).unwrap()).unwrap_err().to_string(), needs);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "phase: later").unwrap();
        let path = file.path().display().to_string();
        let error = recipe(&parsed(&["--maistra", "--manifest", &path]).unwrap()).unwrap_err();
        assert!(format!("{error:#}").starts_with(&format!("{path}: manifest.yaml: phase is later")), "{error:#}");
        for wrong in [
            &["--phase", "PreAuthN"][..],
            &["--maistra", "--compat"],
            &["--maistra", "--phase", "AUTHN"],
            &["--maistra", "--manifest", "/m", "--priority", "1"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reference_is_that_of_an_image_and_its_digest_is_not_for_the_writer_to_choose() {
        let args = Args { reference: format!("r.test/a@sha256:{}", "a".repeat(64)), ..parsed(&[]).unwrap() };
        assert!(run(args).unwrap_err().to_string().ends_with("name a tag"));
        let args = Args { reference: "https://r.test/a:1".to_owned(), ..parsed(&[]).unwrap() };
        assert!(run(args).unwrap_err().to_string().contains("not an image reference"));
    }

    #[test]
    fn what_no_envoy_takes_is_not_pushed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\0asm\x0d\0\x01\0").unwrap();
        let args = Args { file: file.path().to_owned(), ..parsed(&[]).unwrap() };
        assert_eq!(run(args).unwrap(), Outcome::Finding);
    }
}
