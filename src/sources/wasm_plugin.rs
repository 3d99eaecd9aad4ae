//! The `spec` of a WasmPlugin, turned into a [`Plugin`] (Istio: R1.2 to R1.11).
//!
//! One validator for what Istio spreads over CRD, CEL rules and webhook: what any of them refuses is refused.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields::{Field, Object};
use super::module_url;
use super::names::is_c_identifier;
use super::report::Report;
use super::workload::target;
use crate::model::{
    EnvVar, EnvVarSource, FailStrategy, ModuleLocation, ModuleRef, Plugin, PluginId, PluginType, Position, PullPolicy,
    TrafficMatch, WasmProgram, WorkloadMode,
};

const SPEC: [&str; 16] = [
    "selector",
    "url",
    "sha256",
    "imagePullPolicy",
    "imagePullSecret",
    "verificationKey",
    "pluginConfig",
    "pluginName",
    "phase",
    "priority",
    "vmConfig",
    "match",
    "failStrategy",
    "type",
    "targetRef",
    "targetRefs",
];

const PHASES: [(&str, Position); 4] = [
    ("UNSPECIFIED_PHASE", Position::BeforeRouter),
    ("AUTHN", Position::PreAuthN),
    ("AUTHZ", Position::PreAuthZ),
    ("STATS", Position::PreStats),
];

const TYPES: [(&str, PluginType); 3] =
    [("UNSPECIFIED_PLUGIN_TYPE", PluginType::Http), ("HTTP", PluginType::Http), ("NETWORK", PluginType::Network)];

const FAIL_STRATEGIES: [(&str, FailStrategy); 3] = [
    ("FAIL_CLOSE", FailStrategy::FailClose),
    ("FAIL_OPEN", FailStrategy::FailOpen),
    ("FAIL_RELOAD", FailStrategy::FailReload),
];

const PULL_POLICIES: [(&str, PullPolicy); 3] = [
    ("UNSPECIFIED_POLICY", PullPolicy::Unspecified),
    ("IfNotPresent", PullPolicy::IfNotPresent),
    ("Always", PullPolicy::Always),
];

const MODES: [(&str, WorkloadMode); 4] = [
    ("UNDEFINED", WorkloadMode::ClientAndServer),
    ("CLIENT", WorkloadMode::Client),
    ("SERVER", WorkloadMode::Server),
    ("CLIENT_AND_SERVER", WorkloadMode::ClientAndServer),
];

/// Reads `spec`. `None` where something is missing or wrong, which the report then says; a value beside faults in
/// the report is not to be used either.
pub(super) fn read(
    id: &PluginId,
    created: Option<Timestamp>,
    spec: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<Plugin> {
    let spec = spec.object(&SPEC, report)?;
    let target = target(&spec, report);
    let program = program(id, &spec, report);
    let matches = spec.get("match").map_or(Some(Vec::new()), |field| matches(&field, report));
    let priority = spec.get("priority").map_or(Some(0), |field| priority(&field, report));
    Some(Plugin {
        position: choice(&spec, "phase", &PHASES, report),
        plugin_type: choice(&spec, "type", &TYPES, report),
        fail_strategy: choice(&spec, "failStrategy", &FAIL_STRATEGIES, report),
        id: id.clone(),
        created,
        target: target?,
        matches: matches?,
        priority: priority?,
        program: program?,
    })
}

/// The field `key`, where absent and mistaken both give the first choice.
fn choice<T: Copy>(object: &Object<'_>, key: &str, choices: &[(&str, T)], report: &mut Report<'_>) -> T {
    object.get(key).and_then(|field| field.choice(choices, report)).unwrap_or(choices[0].1)
}

fn priority(field: &Field<'_>, report: &mut Report<'_>) -> Option<i32> {
    field.integer(i32::MIN.into()..=i32::MAX.into(), report).and_then(|priority| i32::try_from(priority).ok())
}

fn program(id: &PluginId, spec: &Object<'_>, report: &mut Report<'_>) -> Option<WasmProgram> {
    let module = module(id, spec, report);
    let config = spec.get("pluginConfig").map_or(Some(None), |field| config(&field, report).map(Some));
    let root_id = spec.get("pluginName").map_or(Some(""), |field| field.text_of(1..=256, report));
    let env = spec.get("vmConfig").map_or(Some(Vec::new()), |field| vm_config(&field, report));
    if let Some(key) = spec.get("verificationKey")
        && key.text(report).is_some()
    {
        report.warn(&key.path, "has no effect: signatures are not verified, neither here nor by Istio");
    }
    Some(WasmProgram {
        module: module?,
        config: config?.filter(|config| !config.is_empty()),
        root_id: root_id?.to_owned(),
        env: env?,
    })
}

fn config(field: &Field<'_>, report: &mut Report<'_>) -> Option<Map<String, Value>> {
    field.any_object(report)?;
    match field.node.to_json() {
        Value::Object(config) => Some(config),
        _ => None,
    }
}

fn module(id: &PluginId, spec: &Object<'_>, report: &mut Report<'_>) -> Option<ModuleRef> {
    let location = spec.required("url", report).and_then(|field| location(&field, report));
    let sha256 = spec.get("sha256").map_or(Some(None), |field| sha256(&field, report));
    let secret = spec.get("imagePullSecret").map_or(Some(None), |field| field.text_of(1..=253, report).map(Some));
    let pull_policy = choice(spec, "imagePullPolicy", &PULL_POLICIES, report);
    let is_image = |location: &ModuleLocation| matches!(location, ModuleLocation::Oci(_));
    if let (Some(Some(_)), Some(false)) = (secret, location.as_ref().map(is_image)) {
        report.warn(&format!("{}.imagePullSecret", spec.path), "has no effect: only images are pulled with a secret");
    }
    let pull_secret = secret?.map(|name| (id.namespace.to_string(), name.to_owned()));
    Some(ModuleRef { location: location?, sha256: sha256?, pull_policy, pull_secret })
}

fn location(field: &Field<'_>, report: &mut Report<'_>) -> Option<ModuleLocation> {
    let text = field.text(report)?;
    module_url::parse(text).map_err(|reason| report.fault(&field.path, reason)).ok()
}

fn sha256(field: &Field<'_>, report: &mut Report<'_>) -> Option<Option<crate::model::Digest>> {
    let text = field.text(report)?;
    if text.is_empty() {
        return Some(None);
    }
    let digest = text.parse().map_err(|_| {
        report
            .fault(&field.path, format!("must be empty or 64 lowercase hex characters, has {}", text.chars().count()));
    });
    digest.ok().map(Some)
}

fn vm_config(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<EnvVar>> {
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
    let is_host = choice(&object, "valueFrom", &[("INLINE", false), ("HOST", true)], report);
    let value = object.get("value");
    let source = match (is_host, &value) {
        (true, None) => Some(EnvVarSource::Host),
        (true, Some(value)) => {
            report.fault(&value.path, "value may only be set when valueFrom is INLINE, and here it is HOST");
            None
        }
        (false, None) => Some(EnvVarSource::Inline(String::new())),
        (false, Some(value)) => inline(value, report).map(|text| EnvVarSource::Inline(text.to_owned())),
    };
    Some(EnvVar { name: name?.to_owned(), source: source? })
}

/// Only the CRD has a limit here, and it counts characters.
fn inline<'n>(value: &Field<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    let text = value.text(report)?;
    let length = text.chars().count();
    if length > 2048 {
        report.fault(&value.path, format!("must have at most 2048 characters, has {length}"));
    }
    Some(text)
}

fn matches(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<TrafficMatch>> {
    let items = field.list(usize::MAX, report)?;
    Some(items.iter().filter_map(|item| traffic_match(item, report)).collect())
}

fn traffic_match(field: &Field<'_>, report: &mut Report<'_>) -> Option<TrafficMatch> {
    let object = field.object(&["mode", "ports"], report)?;
    let mode = choice(&object, "mode", &MODES, report);
    let mut ports = Vec::new();
    for item in object.get("ports").and_then(|field| field.list(usize::MAX, report)).unwrap_or_default() {
        let number = item.object(&["number"], report).and_then(|port| port.required("number", report));
        let Some(port) = number.and_then(|number| number.port(report)) else { continue };
        if ports.contains(&port) {
            report.fault(&format!("{}.number", item.path), format!("duplicate port {port} in one entry"));
        }
        ports.push(port);
    }
    Some(TrafficMatch { mode, ports })
}
