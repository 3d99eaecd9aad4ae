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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::model::{Digest, PluginKind, Selector, TargetReference, WorkloadTarget};
    use crate::sources::document::{Content, Declaration};
    use crate::sources::manifest;

    fn declaration(spec: &str) -> Declaration {
        let head = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n";
        let metadata = "metadata: {name: a, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}\n";
        let text = format!("{head}{metadata}spec:\n{spec}");
        manifest::parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations.remove(0)
    }

    fn plugin(spec: &str) -> Plugin {
        let declaration = declaration(spec);
        let Some(Content::Plugin(plugin)) = declaration.content else { panic!("{:#?}", declaration.faults) };
        plugin.as_ref().clone()
    }

    fn minimal() -> Plugin {
        Plugin {
            id: PluginId::new(PluginKind::WasmPlugin, "shop", "a"),
            created: Some("2024-01-01T00:00:00Z".parse().unwrap()),
            target: WorkloadTarget::Everything,
            matches: Vec::new(),
            position: Position::BeforeRouter,
            priority: 0,
            plugin_type: PluginType::Http,
            fail_strategy: FailStrategy::FailClose,
            program: WasmProgram {
                module: ModuleRef {
                    location: ModuleLocation::Oci("r/a:v1".into()),
                    sha256: None,
                    pull_policy: PullPolicy::Unspecified,
                    pull_secret: None,
                },
                config: None,
                root_id: String::new(),
                env: Vec::new(),
            },
        }
    }

    #[test]
    fn what_is_absent_has_its_default() {
        assert_eq!(plugin("  url: oci://r/a:v1\n"), minimal());
        assert_eq!(plugin("  {url: r/a:v1, pluginConfig: {}, targetRefs: [], sha256: '', phase: null}\n"), minimal());
    }

    #[test]
    fn every_field_reaches_the_plugin() {
        let sha256 = "a".repeat(64);
        let spec = format!(
            "  url: https://h/a.wasm\n  sha256: {sha256}\n  imagePullPolicy: Always\n  imagePullSecret: s\n  \
               selector: {{matchLabels: {{app: web}}}}\n  pluginConfig: {{b: [1, null], a: x}}\n  pluginName: root\n  \
               phase: AUTHZ\n  priority: -5\n  type: NETWORK\n  failStrategy: FAIL_OPEN\n  \
               match: [{{mode: SERVER, ports: [{{number: 80}}]}}, {{}}]\n  \
               vmConfig: {{env: [{{name: A, value: x}}, {{name: B, valueFrom: HOST}}, {{name: C}}]}}\n"
        );
        let variable = |name: &str, source| EnvVar { name: name.into(), source };
        let program = WasmProgram {
            module: ModuleRef {
                location: ModuleLocation::Http("https://h/a.wasm".into()),
                sha256: Some(sha256.parse::<Digest>().unwrap()),
                pull_policy: PullPolicy::Always,
                pull_secret: Some(("shop".into(), "s".into())),
            },
            config: json!({"a": "x", "b": [1, null]}).as_object().cloned(),
            root_id: "root".into(),
            env: vec![
                variable("A", EnvVarSource::Inline("x".into())),
                variable("B", EnvVarSource::Host),
                variable("C", EnvVarSource::Inline(String::new())),
            ],
        };
        let wanted = Plugin {
            target: WorkloadTarget::Labels(Selector([("app".to_owned(), "web".to_owned())].into())),
            matches: vec![TrafficMatch { mode: WorkloadMode::Server, ports: vec![80] }, TrafficMatch::default()],
            position: Position::PreAuthZ,
            priority: -5,
            plugin_type: PluginType::Network,
            fail_strategy: FailStrategy::FailOpen,
            program,
            ..minimal()
        };
        assert_eq!(plugin(&spec), wanted);
    }

    #[test]
    fn one_reference_and_a_list_of_them_are_the_same() {
        let reference = TargetReference { group: String::new(), kind: "Service".into(), name: "x".into() };
        for spec in ["targetRef: {kind: Service, name: x}", "targetRefs: [{group: '', kind: Service, name: x}]"] {
            let target = plugin(&format!("  url: r/a\n  {spec}\n")).target;
            assert_eq!(target, WorkloadTarget::References(vec![reference.clone()]));
        }
    }

    #[test]
    fn all_faults_are_told_at_once_each_at_its_place() {
        let declaration = declaration(
            "  selctor: {}\n  url: localhost:5000/a\n  phase: authn\n  priority: '5'\n  match:\n  - mode: SERVR\n    \
             ports: [{number: 70000}, {}]\n  - null\n  failStrategy: FAIL_CLOSED\n",
        );
        let told: Vec<_> = declaration
            .faults
            .iter()
            .map(|found| format!("{}:{} {}: {}", found.line, found.column, found.field, found.reason))
            .collect();
        assert_eq!(
            told,
            [
                "5:3 spec.selctor: unknown field, did you mean \"selector\"?",
                "6:3 spec.url: url scheme must be one of http, https, file, oci; for an image at a registry's port write oci://localhost:5000/a",
                "12:5 spec.match[1]: must not be null",
                "10:5 spec.match[0].mode: \"SERVR\" is not a known value, allowed are UNDEFINED, CLIENT, SERVER, CLIENT_AND_SERVER, did you mean \"SERVER\"?",
                "11:14 spec.match[0].ports[0].number: 70000 is out of range, allowed is 1 to 65535",
                "11:30 spec.match[0].ports[1].number: is required",
                "8:3 spec.priority: must be an integer, not \"5\"",
                "7:3 spec.phase: \"authn\" is not a known value, allowed are UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS, did you mean \"AUTHN\"?",
                "13:3 spec.failStrategy: \"FAIL_CLOSED\" is not a known value, allowed are FAIL_CLOSE, FAIL_OPEN, FAIL_RELOAD, did you mean \"FAIL_CLOSE\"?",
            ]
        );
    }

    #[test]
    fn what_is_accepted_and_does_nothing_is_warned_of() {
        let declaration = declaration(
            "  url: file:///a.wasm\n  verificationKey: k\n  imagePullSecret: s\n  selector: {}\n  \
             vmConfig: {env: [{name: A-B}]}\n",
        );
        assert!(declaration.content.is_some());
        let fields: Vec<_> = declaration.warnings.iter().map(|found| found.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.selector", "spec.imagePullSecret", "spec.vmConfig.env[0].name", "spec.verificationKey"]
        );
        assert_eq!(declaration.warnings[0].reason, "selector without labels selects the whole namespace");
    }
}
