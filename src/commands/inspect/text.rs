//! The report for people: a word and what there is to say, line by line.

use std::collections::BTreeMap;

use super::Subject;
use super::verdict;
use crate::model::EnvoyVersion;
use crate::modules::inspect::{Export, Item, Producer, shown_list, shown_name};
use crate::modules::{Layout, ManifestDefaults, Report, RuntimeConfig, Verdict};

pub fn render(module: &str, subject: &Subject) -> String {
    let Subject { fetched, report, judged } = subject;
    let contents = &report.contents;
    let mut lines = vec![("module", module.to_owned()), ("format", format(report))];
    lines.extend((fetched.layout != Layout::Plain).then(|| ("packed as", fetched.layout.to_string())));
    lines.extend(fetched.image.map(|digest| ("image", format!("sha256:{digest}"))));
    lines.extend(fetched.defaults.as_ref().map(|defaults| ("manifest", of_defaults(defaults))));
    lines.extend(fetched.runtime.as_ref().map(|runtime| ("runtime", of_runtime(runtime))));
    lines.extend([("sha256", report.digest.to_string()), ("size", size(report.size))]);
    if !contents.name.is_empty() {
        lines.push(("name", shown_name(&contents.name)));
    }
    if !contents.producers.is_empty() {
        lines.push(("made by", made_by(&contents.producers)));
    }
    if !contents.imports.is_empty() {
        lines.push(("imports", wrap(&imports(report))));
    }
    if !contents.exports.is_empty() {
        lines.push(("exports", wrap(&exports(report))));
    }
    lines.extend(subject.warnings().map(|warning| ("warning", warning.clone())));
    lines.extend(judged.note.iter().map(|note| ("note", note.clone())));
    lines.extend(verdict_lines(report, judged.release).into_iter().map(|line| ("envoy", line)));
    lines.into_iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

/// What a ServiceMeshExtension that says nothing else gets.
fn of_defaults(defaults: &ManifestDefaults) -> String {
    let ManifestDefaults { name, version, phase, priority, module, .. } = defaults;
    let called = [name, version].into_iter().flatten().map(|text| shown_name(text) + ", ").collect::<String>();
    format!("{called}phase {}, priority {priority}, module {}", phase.as_str(), shown_name(module))
}

/// `envoy_proxy, root ids a b, made for v0.2.1`.
fn of_runtime(runtime: &RuntimeConfig) -> String {
    let listed = |title: &str, texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        (!texts.is_empty()).then(|| format!("{title} {}", shown_list(&texts, MAX_NAMES, " ")))
    };
    let root_ids = listed("root ids", &runtime.root_ids);
    let abi_versions = listed("made for", &runtime.abi_versions);
    let facts = [runtime.runtime.as_deref().map(shown_name), root_ids, abi_versions];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    if facts.is_empty() { "says nothing".to_owned() } else { facts.join(", ") }
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

/// More names than this are counted: a plugin's own are some forty.
const MAX_NAMES: usize = 100;
/// More modules to import from than this are counted: a plugin has two.
const MAX_MODULES: usize = 10;

/// `Rust, rustc 1.90.0`: languages without their version, which is an edition or empty.
fn made_by(producers: &[Producer]) -> String {
    let named = producers.iter().map(|producer| match producer.field.as_str() {
        "language" => shown_name(&producer.name),
        _ => format!("{} {}", shown_name(&producer.name), shown_name(&producer.version)).trim().to_owned(),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// `env: a b; wasi_snapshot_preview1: c`, one line per module that is imported from.
fn imports(report: &Report) -> Vec<String> {
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for import in &report.contents.imports {
        modules.entry(&import.module).or_default().push(&import.name);
    }
    let more = modules.len().saturating_sub(MAX_MODULES);
    let line =
        |(module, names): (&str, Vec<&str>)| format!("{}: {}", shown_name(module), shown_list(&names, MAX_NAMES, " "));
    let lines = modules.into_iter().take(MAX_MODULES).map(line);
    lines.chain((more > 0).then(|| format!("and from {more} more"))).collect()
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
    [shown_list(&of_note, MAX_NAMES, " ")].into_iter().filter(|line| !line.is_empty()).chain(rest).collect()
}

/// Continues under the first line.
fn wrap(lines: &[String]) -> String {
    lines.join(&format!("\n{:10}", ""))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::inspect::judged::Judged;
    use crate::commands::inspect::tests::MODULE;
    use crate::model::Digest;
    use crate::modules::Fetched;
    use crate::modules::inspect;

    fn subject(module: Vec<u8>) -> Subject {
        let report = inspect(&module);
        let plain = Fetched {
            module: module.into(),
            image: None,
            layout: Layout::Plain,
            defaults: None,
            runtime: None,
            warnings: Vec::new(),
        };
        Subject { fetched: plain, report, judged: Judged::of(None) }
    }

    #[test]
    fn an_image_shows_its_layout_its_digest_and_what_its_manifest_says() {
        let mut subject = subject(wat::parse_str(MODULE).unwrap());
        let manifest =
            b"schemaVersion: 1\nname: mine\nversion: 1.0.0\nphase: PreAuthZ\npriority: 100\nmodule: x.wasm\n";
        subject.fetched.layout = Layout::Maistra;
        subject.fetched.image = Some(Digest::of(b"image"));
        subject.fetched.defaults = Some(ManifestDefaults::parse(manifest).unwrap());
        subject.fetched.warnings = vec!["odd".to_owned()];
        let shown = render("oci://r/x:1", &subject);
        let expected = format!(
            "packed as a Maistra extension image (manifest.yaml)\n\
             image     sha256:{}\n\
             manifest  mine, 1.0.0, phase PreAuthZ, priority 100, module x.wasm\n\
             sha256    {}\n",
            Digest::of(b"image"),
            subject.report.digest
        );
        assert!(shown.contains(&expected) && shown.contains("warning   odd\n"), "{shown}");
    }

    #[test]
    fn what_an_image_says_of_its_root_ids_is_shown_and_harmless() {
        let mut subject = subject(wat::parse_str(MODULE).unwrap());
        let mut shown = |config: &[u8]| {
            subject.fetched.runtime = Some(RuntimeConfig::parse(config).unwrap());
            let shown = render("oci://r/x:1", &subject);
            shown.lines().find(|line| line.starts_with("runtime")).unwrap().to_owned()
        };
        let config = br#"{"type": "envoy_proxy", "abi_versions": ["v0.2.1"], "config": {"root_ids": ["a", "b"]}}"#;
        assert_eq!(shown(config), "runtime   envoy_proxy, root ids a b, made for v0.2.1");
        assert_eq!(shown(b"{}"), "runtime   says nothing");
        let reversed = "{\"config\": {\"rootIds\": [\"\u{202e}olleh\"]}}";
        assert_eq!(shown(reversed.as_bytes()), "runtime   root ids \\u{202e}olleh");
    }

    #[test]
    fn the_text_says_what_an_operator_asks() {
        let subject = subject(wat::parse_str(MODULE).unwrap());
        let expected = format!(
            "module    a.wasm\n\
             format    a WebAssembly module, proxy-wasm ABI 0.2.1\n\
             sha256    {}\n\
             size      {} bytes\n\
             imports   env: proxy_log\n          wasi_snapshot_preview1: fd_sync\n\
             exports   memory proxy_abi_version_0_2_1 _initialize proxy_on_memory_allocate proxy_on_tick\n          and 1 more\n\
             envoy     1.40.0 takes it\n\
             envoy     but 1.37.0 refuses it: imports wasi_snapshot_preview1.fd_sync, which this Envoy does not provide (1.39.3 does)\n\
             envoy     but 1.36.4 refuses it: imports wasi_snapshot_preview1.fd_sync, which this Envoy does not provide (1.39.3 does)\n",
            subject.report.digest, subject.report.size
        );
        assert_eq!(render("a.wasm", &subject), expected);
    }

    #[test]
    fn a_hostile_module_fills_no_screen_and_clears_none() {
        let long = "x".repeat(1_000);
        let imports: String = (0..300).map(|n| format!(r#"(import "{}{long}" "\1b[2J{n}" (func))"#, n % 20)).collect();
        let exports: String = (0..300).map(|n| format!(r#"(func (export "proxy_{n}\07{long}"))"#)).collect();
        let text = format!(r#"(module {imports} {exports} (@producers (language "\1b[31mRust" "")))"#);
        let shown = render("a.wasm", &subject(wat::parse_str(text).unwrap()));
        assert!(!shown.contains(|character: char| character.is_control() && character != '\n'), "{shown}");
        assert!(
            shown.len() < 20_000 && shown.contains("and 200 more") && shown.contains("and from 10 more"),
            "{}",
            shown.len()
        );
    }
}
