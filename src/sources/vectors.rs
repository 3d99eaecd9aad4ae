//! The shared cases in `../shared/vectors`, as far as they concern WasmPlugin.
//!
//! They lie beside the repository, not in it. Where they are missing, the test says so, and fails in CI.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::Declaration;
use super::manifest;

/// The cases in `file` below `key`, or nothing.
fn cases(file: &str, key: &str) -> Vec<Value> {
    let folder = std::env::var_os("WASMPLANE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = folder.join("vectors").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        let message = format!("{} is missing: ITS CASES ARE NOT TESTED", path.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
        eprintln!("{message}");
        return Vec::new();
    };
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    document[key].as_array().unwrap().clone()
}

fn declarations(resource: &Value) -> Vec<Declaration> {
    manifest::parse(Path::new("case.json"), resource.to_string().as_bytes()).unwrap().declarations
}

fn is_wasm_plugin(resource: &Value) -> bool {
    resource["kind"] == "WasmPlugin"
}

#[test]
fn every_wasm_plugin_of_the_validation_cases_is_judged_as_it_says() {
    let mut wrong = Vec::new();
    for case in cases("validation.yaml", "cases") {
        let (resource, wanted) = (&case["resource"], case["wasmplane"].as_str().unwrap());
        if !is_wasm_plugin(resource) {
            continue;
        }
        let declaration = declarations(resource).remove(0);
        let answer = if declaration.content.is_some() { "accept" } else { "refuse" };
        // "either" wants at least a warning.
        let is_right = match wanted {
            "either" => answer == "refuse" || !declaration.warnings.is_empty(),
            _ => answer == wanted,
        };
        let is_explained = answer == "accept" || declaration.faults.iter().all(|fault| !fault.field.is_empty());
        if !is_right || !is_explained {
            wrong.push((case["name"].clone(), wanted.to_owned(), declaration.faults));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_wasm_plugin_of_the_istio_vectors_is_accepted_or_rejected_as_it_says() {
    for vector in cases("istio.yaml", "vectors") {
        let rejected = &vector["expect"]["rejected"];
        for resource in vector["resources"].as_array().unwrap().iter().filter(|resource| is_wasm_plugin(resource)) {
            let declaration = declarations(resource).remove(0);
            let is_refused = declaration.content.is_none();
            assert_eq!(is_refused, !rejected.is_null(), "{}: {:?}", vector["name"], declaration.faults);
        }
    }
}
