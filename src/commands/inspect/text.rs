//! The report for people: a word and what there is to say, line by line.

use super::verdict;
use crate::model::EnvoyVersion;
use crate::modules::inspect::{Export, Item};
use crate::modules::{Report, Verdict};

pub fn render(module: &str, report: &Report, release: EnvoyVersion) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::inspect::{judged_as, tests::MODULE};
    use crate::modules::inspect;

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
        assert_eq!(render("a.wasm", &report, judged_as(None)), expected);
    }
}
