//! The cases of `../shared/vectors/istio.yaml` through the function that `wasmplane explain` prints.
//!
//! Not yet: rejections, TrafficExtension and Lua.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wasmplane::commands::explain::answer;
use wasmplane::compile::Workload;
use wasmplane::sources;

/// Beside the repository, or further up where it is a worktree.
fn vectors() -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1);
    above.map(|folder| folder.join("shared/vectors/istio.yaml")).find(|path| path.exists())
}

fn is_covered(case: &Value) -> bool {
    let resources = case["resources"].as_array().unwrap();
    case["expect"].get("rejected").is_none() && resources.iter().all(|resource| resource["kind"] == "WasmPlugin")
}

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

/// What differs from the expectation of a case, in words.
fn difference(case: &Value) -> Option<String> {
    let answer = explained(case);
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
    let Some(path) = vectors() else {
        assert!(std::env::var("CI").is_err(), "shared/vectors/istio.yaml is not beside the repository");
        eprintln!("SKIPPED: shared/vectors/istio.yaml is not beside the repository; no case was tried");
        return;
    };
    let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases: Vec<_> = document["vectors"].as_array().unwrap().iter().filter(|case| is_covered(case)).collect();
    assert!(cases.len() > 40, "only {} cases", cases.len());
    let differences: Vec<_> = cases.iter().filter_map(|case| difference(case)).collect();
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
}
