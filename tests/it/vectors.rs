//! The cases of `tests/vectors/istio.yaml` through the function that `wasmplane explain` prints.

use std::path::Path;

use serde_json::{Value, json};
use wasmplane::commands::explain::answer;
use wasmplane::compile::Workload;
use wasmplane::sources;

/// Each listener of a case is a short-form listener of one ProxyTemplate that selects the proxy.
fn manifests(case: &Value) -> String {
    let template = json!({
        "apiVersion": "wasmplane.io/v1alpha1",
        "kind": "ProxyTemplate",
        "metadata": {"name": "vector", "namespace": case["proxy"]["namespace"]},
        "spec": {"listeners": case["listeners"]},
    });
    let mut items = case["resources"].as_array().unwrap().clone();
    items.push(template);
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn explained(case: &Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("case.json");
    std::fs::write(&file, manifests(case)).unwrap();
    let workload = Workload {
        namespace: case["proxy"]["namespace"].as_str().unwrap().to_owned(),
        labels: serde_json::from_value(case["proxy"]["labels"].clone()).unwrap(),
        root_namespace: case["rootNamespace"].as_str().unwrap().to_owned(),
    };
    answer(&workload, &sources::load(&[file]))
}

/// A warning of a case is `namespace/name: ` and how the reason begins.
fn is_warned(case: &Value, answer: &Value) -> bool {
    let given = answer["warnings"].as_array().unwrap();
    case["expect"]["warnings"].as_array().into_iter().chain(case["warnings"].as_array()).flatten().all(|expected| {
        let (plugin, reason) = expected.as_str().unwrap().split_once(": ").unwrap();
        let is_it = |it: &&Value| it["resource"] == format!("WasmPlugin {plugin}");
        given.iter().filter(is_it).any(|it| it["reason"].as_str().unwrap().starts_with(reason))
    })
}

/// Whether the resource is refused and the field is named that a rejection begins with.
fn is_rejected(case: &Value, answer: &Value) -> bool {
    let resource = &case["resources"][0];
    let metadata = &resource["metadata"];
    let name = ["kind", "namespace", "name"].map(|key| resource[key].as_str().or(metadata[key].as_str()).unwrap());
    let of_it = |it: &&Value| it["resource"] == format!("{} {}/{}", name[0], name[1], name[2]);
    let reasons = answer["rejected"].as_array().unwrap().iter().filter(of_it).filter_map(|it| it["reason"].as_str());
    let told = reasons.collect::<Vec<_>>().join("; ");
    let expected = case["expect"]["rejected"].as_str().unwrap();
    // Such as `number` of `match[0].ports[0].number out of range 1-65535`; or the phrase stands there as it is.
    let field = expected.split_whitespace().next().and_then(|path| path.rsplit('.').next()).unwrap();
    told.contains(field) || told.contains(expected)
}

/// What differs from the expectation of a case, in words.
fn difference(case: &Value) -> Option<String> {
    let answer = explained(case);
    if let Some(expected) = case["expect"].get("rejected") {
        return (!is_rejected(case, &answer)).then(|| format!("{}: expected {expected}\n  got {answer}", case["name"]));
    }
    let listeners = answer["listeners"].as_array().unwrap().iter().map(|listener| {
        let lists = json!({"http": listener["http"], "network": listener["network"]});
        (listener["name"].as_str().unwrap().to_owned(), lists)
    });
    let listeners: Value = listeners.collect();
    let is_right =
        listeners == case["expect"]["listeners"] && answer["rejected"] == json!([]) && is_warned(case, &answer);
    (!is_right).then(|| format!("{}: expected {}\n  got {answer}", case["name"], case["expect"]["listeners"]))
}

#[test]
fn the_cases_of_istio_pass_through_explain() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/istio.yaml");
    let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = document["vectors"].as_array().unwrap();
    let differences: Vec<_> = cases.iter().filter_map(difference).collect();
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
}

#[test]
fn a_plugin_on_a_port_that_no_listener_has_is_warned_of_by_explain_as_by_validate() {
    let plugin = json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"url": "oci://r.io/a:v1", "match": [{"ports": [{"number": 81}]}]},
    });
    let case = json!({
        "resources": [plugin],
        "proxy": {"namespace": "shop", "labels": {}},
        "rootNamespace": "istio-system",
        "listeners": [{"name": "in", "direction": "INBOUND", "port": 80, "protocol": "HTTP"}],
        "expect": {"warnings": ["shop/a: spec.match[0].ports[0].number: no listener of the ProxyTemplates here has port 81"]},
    });
    assert!(is_warned(&case, &explained(&case)));
}
