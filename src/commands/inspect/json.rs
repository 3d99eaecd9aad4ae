//! The report for programs.

use serde_json::{Value, json};

use super::verdict;
use crate::model::EnvoyVersion;
use crate::modules::{Report, Verdict};

pub fn render(module: &str, report: &Report, release: EnvoyVersion) -> Value {
    let contents = &report.contents;
    let imports = contents
        .imports
        .iter()
        .map(|import| json!({"module": import.module, "name": import.name, "type": import.item.to_string()}));
    let exports = contents.exports.iter().map(|export| json!({"name": export.name, "type": export.item.to_string()}));
    let verdicts = report.verdicts.iter().map(|(release, verdict)| of_verdict(*release, verdict));
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
        "verdict": of_verdict(release, verdict(report, release)),
        "verdicts": verdicts.collect::<Vec<_>>(),
    })
}

fn of_verdict(release: EnvoyVersion, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Accepted => json!({"envoy": release.to_string(), "accepted": true}),
        Verdict::Refused(reason) => json!({"envoy": release.to_string(), "accepted": false, "reason": reason}),
    }
}
