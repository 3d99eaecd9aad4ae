//! The cases in `tests/vectors`: what is accepted and what is refused.

use std::path::Path;

use serde_json::Value;

use super::document::Declaration;
use super::manifest;

/// The cases in `file` below `key`.
fn cases(file: &str, key: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    document[key].as_array().unwrap().clone()
}

fn declarations(resource: &Value) -> Vec<Declaration> {
    manifest::parse(Path::new("case.json"), resource.to_string().as_bytes()).unwrap().declarations
}

#[test]
fn every_resource_of_the_validation_cases_is_judged_as_it_says() {
    let mut wrong = Vec::new();
    for case in cases("validation.yaml", "cases") {
        let (resource, wanted) = (&case["resource"], case["wasmplane"].as_str().unwrap());
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
fn every_resource_of_the_istio_vectors_is_accepted_or_rejected_as_it_says() {
    for vector in cases("istio.yaml", "vectors") {
        let rejected = &vector["expect"]["rejected"];
        for resource in vector["resources"].as_array().unwrap().iter() {
            let declaration = declarations(resource).remove(0);
            let is_refused = declaration.content.is_none();
            assert_eq!(is_refused, !rejected.is_null(), "{}: {:?}", vector["name"], declaration.faults);
        }
    }
}
