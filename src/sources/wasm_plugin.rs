//! The `spec` of a WasmPlugin, turned into a [`Plugin`] (Istio: R1.2 to R1.11).
//!
//! One validator for what Istio spreads over CRD, CEL rules and webhook: what any of them refuses is refused.

use super::annotations::{self, Subject};
use super::fields::Field;
use super::metadata::Metadata;
use super::report::Report;
use super::workload::target;
use super::{traffic, wasm_block};
use crate::model::{Plugin, PluginId, Program};

const OWN_FIELDS: [&str; 6] = ["selector", "phase", "priority", "match", "targetRef", "targetRefs"];

/// Reads `spec`. `None` where something is missing or wrong, which the report then says; a value beside faults in
/// the report is not to be used either.
pub(super) fn read(
    id: &PluginId,
    metadata: &Metadata<'_>,
    spec: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<Plugin> {
    let known = [&OWN_FIELDS[..], &wasm_block::FIELDS[..]].concat();
    let spec = spec.object(&known, report)?;
    let target = target(&spec, &["selector", "targetRef", "targetRefs"], report);
    let block = wasm_block::read(id, &spec, report);
    let traffic = traffic::read(&spec, "UNSPECIFIED_PHASE", report);
    let annotations = annotations::read(metadata.annotations.as_ref(), Subject::Wasm, report);
    let (mut block, traffic) = (block?, traffic?);
    annotations.warn_of_no_effect(block.plugin_type, block.fail_strategy, report);
    block.program.options = annotations.options;
    Some(Plugin {
        id: id.clone(),
        created: metadata.created,
        target: target?,
        matches: traffic.matches,
        position: traffic.position,
        priority: traffic.priority,
        plugin_type: block.plugin_type,
        fail_strategy: block.fail_strategy,
        program: Program::Wasm(block.program),
        is_disabled: annotations.is_disabled,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::model::{
        Digest, EnvVar, EnvVarSource, FailStrategy, ModuleLocation, ModuleRef, PluginKind, PluginType, Position,
        PullPolicy, Selector, TargetReference, TrafficMatch, WasmOptions, WasmProgram, WorkloadMode, WorkloadTarget,
    };
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
            program: Program::Wasm(WasmProgram {
                module: ModuleRef {
                    location: ModuleLocation::Oci("r/a:v1".into()),
                    sha256: None,
                    pull_policy: PullPolicy::Unspecified,
                    pull_secret: None,
                },
                config: None,
                root_id: String::new(),
                env: Vec::new(),
                options: WasmOptions::default(),
            }),
            is_disabled: false,
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
            options: WasmOptions::default(),
        };
        let wanted = Plugin {
            target: WorkloadTarget::Labels(Selector([("app".to_owned(), "web".to_owned())].into())),
            matches: vec![TrafficMatch { mode: WorkloadMode::Server, ports: vec![80] }, TrafficMatch::default()],
            position: Position::PreAuthZ,
            priority: -5,
            plugin_type: PluginType::Network,
            fail_strategy: FailStrategy::FailOpen,
            program: Program::Wasm(program),
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
                "13:3 spec.failStrategy: \"FAIL_CLOSED\" is not a known value, allowed are FAIL_CLOSE, FAIL_OPEN, FAIL_RELOAD, did you mean \"FAIL_CLOSE\"?",
                "12:5 spec.match[1]: must not be null",
                "10:5 spec.match[0].mode: \"SERVR\" is not a known value, allowed are UNDEFINED, CLIENT, SERVER, CLIENT_AND_SERVER, did you mean \"SERVER\"?",
                "11:14 spec.match[0].ports[0].number: 70000 is out of range, allowed is 1 to 65535",
                "11:30 spec.match[0].ports[1].number: is required",
                "8:3 spec.priority: must be an integer, not \"5\"",
                "7:3 spec.phase: \"authn\" is not a known value, allowed are UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS, did you mean \"AUTHN\"?",
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
