//! `wasmplane inspect`: what a module is, and whether Envoy would take it.
//!
//! Comes in: a path or URL. Goes out: a report on stdout; the exit code says what Envoy would (0 takes it, 1 refuses it).

mod json;
mod judged;
mod text;

use anyhow::{Context as _, bail};

use self::judged::{AskedVersion, Judged, parse_version};
use super::network::NetworkArgs;
use super::progress::Bar;
use super::{Format, Outcome};
use crate::model::{EnvoyVersion, ImageReference, ModuleLocation, shown_url};
use crate::modules::{Fetched, Report, Verdict, fetch_once, inspect, unusable_proxies};

/// What a module is, and whether Envoy would take it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, an http(s) URL, or an image as oci://HOST/PATH[:TAG][@DIGEST].
    #[arg(value_name = "URL|FILE")]
    module: String,

    /// The Envoy to judge for, as in 1.36 or 1.36.4 [default: the newest that is known].
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    envoy: Option<AskedVersion>,

    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    network: NetworkArgs,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let location = location(&args.module)?;
    unusable_proxies().iter().for_each(|said| eprintln!("warning  {said}"));
    let shown = shown(&args.module, &location);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let bar = Bar::new("fetching");
    let fetch = fetch_once(&location, args.network.settings()?, bar.watch());
    let fetched = runtime.context("no runtime for the download")?.block_on(fetch);
    let fetched = match (fetched, image_meant(&args.module, &location)) {
        (Err(error), Some(image)) => bail!("{error}; an image is named as oci://{image}"),
        (fetched, _) => fetched?,
    };
    drop(bar);
    let subject = Subject { report: inspect(&fetched.module), judged: Judged::of(args.envoy.as_ref()), fetched };
    match args.format {
        Format::Text => print!("{}", text::render(&shown, &subject)),
        Format::Json => println!("{:#}", json::render(&shown, &subject)),
    }
    match subject.verdict() {
        Verdict::Accepted => Ok(Outcome::Fine),
        Verdict::Refused(_) => Ok(Outcome::Finding),
    }
}

/// A module, where it came from, and what is to be said of it.
struct Subject {
    fetched: Fetched,
    report: Report,
    judged: Judged,
}

impl Subject {
    fn verdict(&self) -> &Verdict {
        verdict(&self.report, self.judged.release)
    }

    /// What is odd about the packaging, then about the module.
    fn warnings(&self) -> impl Iterator<Item = &String> {
        let packaging = &self.fetched.warnings;
        // Of a manifest that is not what the module is found by.
        let defaults = self.fetched.defaults.iter().flat_map(|defaults| &defaults.warnings);
        let defaults = defaults.filter(|warning| !packaging.contains(warning));
        packaging.iter().chain(defaults).chain(&self.report.warnings)
    }
}

fn location(module: &str) -> anyhow::Result<ModuleLocation> {
    match module.split_once("://") {
        None => Ok(ModuleLocation::File(module.into())),
        Some(("file", path)) => Ok(ModuleLocation::File(path.into())),
        Some(("http" | "https", _)) => Ok(ModuleLocation::Http(module.to_owned())),
        Some(("oci", reference)) => Ok(ModuleLocation::Oci(reference.to_owned())),
        Some((scheme, _)) => {
            bail!("{}: unknown scheme {scheme}: name a file, or an http(s) or oci URL", shown_url(module))
        }
    }
}

/// Where there is no such file, and the name is that of an image as docker knows it: with a host and a path.
fn image_meant(module: &str, location: &ModuleLocation) -> Option<ImageReference> {
    let ModuleLocation::File(path) = location else { return None };
    let (host, _) = module.split_once('/')?;
    let is_host = host == "localhost" || host.contains(['.', ':']) && !host.starts_with('.');
    if is_host && !path.exists() { module.parse().ok() } else { None }
}

/// As it was written, without the secrets of a URL.
fn shown(module: &str, location: &ModuleLocation) -> String {
    match location {
        ModuleLocation::Http(url) => shown_url(url),
        ModuleLocation::Oci(_) | ModuleLocation::File(_) => module.to_owned(),
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
        run(Args {
            module,
            envoy: envoy.map(|text| parse_version(text).unwrap()),
            format: Format::Json,
            network: NetworkArgs::default(),
        })
        .unwrap()
    }

    #[test]
    fn the_password_and_the_token_of_a_url_are_not_printed() {
        let module = wat::parse_str(MODULE).unwrap();
        let url = "https://me:hunter2@m.test/a.wasm?sig=hunter3";
        let fetched = Fetched {
            module: module.clone().into(),
            image: None,
            layout: crate::modules::Layout::Plain,
            defaults: None,
            runtime: None,
            warnings: Vec::new(),
        };
        let subject = Subject { report: inspect(&module), judged: Judged::of(None), fetched };
        let shown = shown(url, &location(url).unwrap());
        for printed in [text::render(&shown, &subject), json::render(&shown, &subject).to_string()] {
            assert!(printed.contains("https://redacted@m.test/a.wasm?redacted"), "{printed}");
            assert!(!printed.contains("hunter"), "{printed}");
        }
        let refused = location("ftp://me:hunter2@m.test/a.wasm").unwrap_err().to_string();
        assert!(!refused.contains("hunter"), "{refused}");
    }

    #[test]
    fn the_exit_code_is_that_of_the_release_asked_for() {
        let module = wat::parse_str(MODULE).unwrap();
        assert_eq!(run_on(&module, None), Outcome::Fine);
        assert_eq!(run_on(&module, Some("1.36")), Outcome::Finding);
        assert_eq!(run_on(b"text", None), Outcome::Finding);
    }

    #[test]
    fn what_is_packed_is_unpacked_and_what_cannot_be_had_is_an_error_with_its_name() {
        let module = wat::parse_str(MODULE).unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &module).unwrap();
        assert_eq!(run_on(&packed.finish().unwrap(), None), Outcome::Fine);

        let error = |module: &str| {
            let args =
                Args { module: module.to_owned(), envoy: None, format: Format::Text, network: NetworkArgs::default() };
            run(args).unwrap_err().to_string()
        };
        assert_eq!(error("/no/such.wasm"), "/no/such.wasm: No such file or directory (os error 2)");
        assert_eq!(error("file:///no/such.wasm"), error("/no/such.wasm"));
        assert_eq!(
            error("ghcr.io/acme/plugin:1.0"),
            "ghcr.io/acme/plugin:1.0: No such file or directory (os error 2); an image is named as \
             oci://ghcr.io/acme/plugin:1.0"
        );
        for file in ["./acme/plugin", "../a.wasm", "build/plugin.wasm", "a.wasm"] {
            assert!(error(file).ends_with("(os error 2)"), "{}", error(file));
        }
        assert!(
            error("oci://127.0.0.1:1/x/y:1").starts_with("oci://127.0.0.1:1/x/y:1: "),
            "{}",
            error("oci://127.0.0.1:1/x/y:1")
        );
        assert!(error("ftp://x/y").starts_with("ftp://x/y: unknown scheme ftp"));
    }
}
