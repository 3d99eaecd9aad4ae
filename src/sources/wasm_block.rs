//! What WasmPlugin and TrafficExtension say of a module in the same words: `url` to `type` (Istio: R1.2, R1.3).
//!
//! A WasmPlugin has these fields in its `spec`, a TrafficExtension in `spec.wasm`.

use serde_json::{Map, Value};

use super::fields::{Field, Object};
use super::module_url;
use super::report::Report;
use super::vm_config::vm_config;
use crate::model::{
    Digest, FailStrategy, ModuleLocation, ModuleRef, PluginId, PluginType, PullPolicy, WasmOptions, WasmProgram,
};

pub(super) const FIELDS: [&str; 10] = [
    "url",
    "sha256",
    "imagePullPolicy",
    "imagePullSecret",
    "verificationKey",
    "pluginConfig",
    "pluginName",
    "failStrategy",
    "vmConfig",
    "type",
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

/// What the fields say.
pub(super) struct WasmBlock {
    pub program: WasmProgram,
    pub plugin_type: PluginType,
    pub fail_strategy: FailStrategy,
}

/// Reads the fields out of `object`, whose other keys are the caller's.
pub(super) fn read(id: &PluginId, object: &Object<'_>, report: &mut Report<'_>) -> Option<WasmBlock> {
    let program = program(id, object, report);
    let plugin_type = object.choice("type", &TYPES, report);
    let fail_strategy = object.choice("failStrategy", &FAIL_STRATEGIES, report);
    Some(WasmBlock { program: program?, plugin_type, fail_strategy })
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
        options: WasmOptions::default(),
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
    let pull_policy = spec.choice("imagePullPolicy", &PULL_POLICIES, report);
    let is_image = |location: &ModuleLocation| matches!(location, ModuleLocation::Oci(_));
    if let (Some(Some(_)), Some(false)) = (secret, location.as_ref().map(is_image)) {
        report.warn(
            &format!("{}.imagePullSecret", spec.path),
            "has no effect: only images (oci://) are pulled with a secret",
        );
    }
    let is_pinned = |location: &ModuleLocation| match location {
        ModuleLocation::Oci(reference) => reference.contains('@') || matches!(sha256, Some(Some(_))),
        ModuleLocation::Http(_) => matches!(sha256, Some(Some(_))),
        ModuleLocation::File(_) => true,
    };
    if pull_policy != PullPolicy::Unspecified && location.as_ref().is_some_and(is_pinned) {
        report.warn(
            &format!("{}.imagePullPolicy", spec.path),
            "has no effect: a file is not pulled, and what is pinned by digest or sha256 never changes",
        );
    }
    let pull_secret = secret?.map(|name| (id.namespace.to_string(), name.to_owned()));
    Some(ModuleRef { location: location?, sha256: sha256?, pull_policy, pull_secret })
}

fn location(field: &Field<'_>, report: &mut Report<'_>) -> Option<ModuleLocation> {
    let text = field.text(report)?;
    let location = module_url::parse(text).map_err(|reason| report.fault(&field.path, reason)).ok()?;
    if let ModuleLocation::Oci(reference) = &location
        && let Some(doubt) = module_url::doubt(reference)
    {
        report.warn(&field.path, format!("no registry can have this image: {doubt}"));
    }
    Some(location)
}

fn sha256(field: &Field<'_>, report: &mut Report<'_>) -> Option<Option<Digest>> {
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
