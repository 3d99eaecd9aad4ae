//! `spec.vmConfig`: the environment variables of a plugin's VM (Istio: R1.2, R1.6, R1.11).

use std::collections::BTreeSet;

use super::fields::Field;
use super::names::is_c_identifier;
use super::report::Report;
use crate::model::{EnvVar, EnvVarSource};

/// Whether the value is the host's.
const SOURCES: [(&str, bool); 2] = [("INLINE", false), ("HOST", true)];

/// Reads `vmConfig`: its `env`, in the order of the file.
pub(super) fn vm_config(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<EnvVar>> {
    let Some(list) = field.object(&["env"], report)?.get("env") else { return Some(Vec::new()) };
    let mut names = BTreeSet::new();
    let mut env = Vec::new();
    for item in list.list(256, report)? {
        let Some(variable) = variable(&item, report) else { continue };
        if !names.insert(variable.name.clone()) {
            report.fault(&format!("{}.name", item.path), format!("duplicate name \"{}\"", variable.name));
        }
        env.push(variable);
    }
    Some(env)
}

fn variable(field: &Field<'_>, report: &mut Report<'_>) -> Option<EnvVar> {
    let object = field.object(&["name", "value", "valueFrom"], report)?;
    let name = object.required("name", report).and_then(|name| name.text_of(1..=256, report));
    if name.is_some_and(|name| !is_c_identifier(name)) {
        report.warn(&format!("{}.name", field.path), "is no C identifier: many programs cannot read such a variable");
    }
    let is_host = object.get("valueFrom").and_then(|field| field.choice(&SOURCES, report)).unwrap_or_default();
    let value = object.get("value");
    let source = match (is_host, &value) {
        (true, None) => Some(EnvVarSource::Host),
        (true, Some(value)) => {
            report.fault(&value.path, "value may only be set when valueFrom is INLINE, and here it is HOST");
            None
        }
        (false, None) => Some(EnvVarSource::Inline(String::new())),
        // Only the CRD has a limit here, and it counts characters.
        (false, Some(value)) => value.characters(0..=2048, report).map(|text| EnvVarSource::Inline(text.to_owned())),
    };
    Some(EnvVar { name: name?.to_owned(), source: source? })
}
