//! The report for programs.

use serde_json::{Value, json};

use super::Subject;
use crate::model::EnvoyVersion;
use crate::modules::{ManifestDefaults, RuntimeConfig, Verdict};

/// More imports or exports than this are counted, not listed.
const MAX_LISTED: usize = 2000;

pub fn render(module: &str, subject: &Subject) -> Value {
    let Subject { fetched, report, judged } = subject;
    let contents = &report.contents;
    let imports = contents
        .imports
        .iter()
        .take(MAX_LISTED)
        .map(|import| json!({"module": import.module, "name": import.name, "type": import.item.to_string()}));
    let exports = contents
        .exports
        .iter()
        .take(MAX_LISTED)
        .map(|export| json!({"name": export.name, "type": export.item.to_string()}));
    let producers = contents
        .producers
        .iter()
        .map(|producer| json!({"field": producer.field, "name": producer.name, "version": producer.version}));
    let verdicts = report.verdicts.iter().map(|(release, verdict)| of_verdict(*release, verdict));
    json!({
        "module": module,
        "format": report.format.describe(),
        "layout": fetched.layout.as_str(),
        "image": fetched.image.map(|digest| format!("sha256:{digest}")),
        "defaults": fetched.defaults.as_ref().map(of_defaults),
        "runtime": fetched.runtime.as_ref().map(of_runtime),
        "sha256": report.digest.to_string(),
        "size": report.size,
        "abi": report.abi.map(|abi| abi.replace('_', ".")),
        "name": contents.name,
        "producers": producers.collect::<Vec<_>>(),
        "hasStart": contents.has_start,
        "memoryPages": contents.memory_pages,
        "customSections": contents.custom_sections.iter().take(MAX_LISTED).collect::<Vec<_>>(),
        "importCount": contents.imports.len(),
        "exportCount": contents.exports.len(),
        "imports": imports.collect::<Vec<_>>(),
        "exports": exports.collect::<Vec<_>>(),
        "warnings": subject.warnings().collect::<Vec<_>>(),
        "asked": judged.asked,
        "note": judged.note,
        "verdict": of_verdict(judged.release, subject.verdict()),
        "verdicts": verdicts.collect::<Vec<_>>(),
    })
}

fn of_defaults(defaults: &ManifestDefaults) -> Value {
    json!({
        "name": defaults.name,
        "description": defaults.description,
        "version": defaults.version,
        "phase": defaults.phase.as_str(),
        "priority": defaults.priority,
        "module": defaults.module,
    })
}

fn of_runtime(runtime: &RuntimeConfig) -> Value {
    json!({"type": runtime.runtime, "abiVersions": runtime.abi_versions, "rootIds": runtime.root_ids})
}

fn of_verdict(release: EnvoyVersion, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Accepted => json!({"envoy": release.to_string(), "accepted": true}),
        Verdict::Refused(reason) => json!({"envoy": release.to_string(), "accepted": false, "reason": reason}),
    }
}
