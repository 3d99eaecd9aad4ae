//! A Secret as Kubernetes has it, read for one purpose: credentials to pull images with.
//!
//! No finding of this file holds what stands in a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::{Field, Object};
use super::report::Report;
use super::yaml::{Node, Value};
use crate::model::{DockerConfig, PullSecret};

pub(super) const FIELDS: [&str; 7] = ["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"];

const TYPE: &str = "kubernetes.io/dockerconfigjson";
const KEY: &str = ".dockerconfigjson";

pub(super) fn is_pull_secret(document: &Node) -> bool {
    document.get("type").and_then(Node::as_text) == Some(TYPE)
}

/// `None` where it is broken, which the report then says. A secret of another type is nobody's fault until a plugin
/// names it.
pub(super) fn read(root: &Object<'_>, report: &mut Report<'_>) -> Option<PullSecret> {
    let secret_type = root.get("type").and_then(|field| field.node.as_text()).unwrap_or("Opaque");
    if secret_type != TYPE {
        return Some(PullSecret::OfType(secret_type.to_owned()));
    }
    let (field, text) = document(root, report)?;
    match DockerConfig::parse(&text) {
        Ok(config) => {
            if !config.helpers.is_empty() {
                report.warn(
                    &field,
                    "credsStore and credHelpers have no effect: programs named in a secret are never run",
                );
            }
            Some(PullSecret::Registries(config))
        }
        Err(error) => {
            report.fault(&field, error.to_string());
            None
        }
    }
}

/// Where the document stands, and the document. `stringData` overrules `data`, as in Kubernetes.
fn document(root: &Object<'_>, report: &mut Report<'_>) -> Option<(String, String)> {
    if let Some(field) = entry(root, "stringData", report) {
        return text(&field, report).map(|text| (field.path.clone(), text.to_owned()));
    }
    let Some(field) = entry(root, "data", report) else {
        report.fault("data", format!("a Secret of type {TYPE} needs the key \"{KEY}\" in data or stringData"));
        return None;
    };
    // Long base64 is often broken into lines.
    let encoded: String = text(&field, report)?.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if decoded.is_none() {
        report.fault(&field.path, "is no base64 of a text; plain text belongs in stringData");
    }
    decoded.map(|text| (field.path, text))
}

fn entry<'n>(root: &Object<'n>, key: &str, report: &mut Report<'_>) -> Option<Field<'n>> {
    root.get(key)?.any_object(report)?.get(KEY)
}

fn text<'n>(field: &Field<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    match &field.node.value {
        Value::Text(text) => Some(text),
        _ => {
            report.fault(&field.path, "must be text");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::sources::memory::{Memory, Scan, Seen};
    use crate::sources::{Loaded, load_texts};

    fn load(rest: &str) -> Loaded {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: pull, namespace: shop}}\n{rest}");
        load_texts([(PathBuf::from("a.yaml"), text.into_bytes())].into())
    }

    fn secret(rest: &str) -> PullSecret {
        let loaded = load(rest);
        assert_eq!(loaded.faults, []);
        loaded.secrets[&("shop".to_owned(), "pull".to_owned())].as_ref().clone()
    }

    fn fault(rest: &str) -> String {
        let loaded = load(rest);
        assert!(loaded.secrets.is_empty());
        let [fault] = &loaded.faults[..] else { panic!("{:#?}", loaded.faults) };
        assert_eq!(fault.resource, "Secret shop/pull");
        let broken = &loaded.pull_secrets()[&("shop".to_owned(), "pull".to_owned())];
        assert_eq!(**broken, PullSecret::Broken(format!("{}: {}", fault.field, fault.reason)));
        format!("{}: {}", fault.field, fault.reason)
    }

    const CONFIG: &str = r#"{"auths":{"r.test":{"username":"u","password":"hunter2"}}}"#;

    fn with_data(data: &str) -> String {
        format!("type: kubernetes.io/dockerconfigjson\ndata: {{.dockerconfigjson: '{data}'}}")
    }

    #[test]
    fn data_is_base64_and_string_data_is_not() {
        let expected = PullSecret::Registries(DockerConfig::parse(CONFIG).unwrap());
        assert_eq!(secret(&with_data(&STANDARD.encode(CONFIG))), expected);
        let plain = format!("type: kubernetes.io/dockerconfigjson\nstringData: {{.dockerconfigjson: '{CONFIG}'}}");
        assert_eq!(secret(&plain), expected);
    }

    #[test]
    fn a_secret_of_another_type_is_no_fault() {
        assert_eq!(secret("data: {a: aGk=}"), PullSecret::OfType("Opaque".into()));
        assert_eq!(secret("type: kubernetes.io/tls\ndata: {}"), PullSecret::OfType("kubernetes.io/tls".into()));
    }

    #[test]
    fn a_broken_secret_is_a_fault_that_does_not_tell_it() {
        let at = "data..dockerconfigjson:";
        assert_eq!(
            fault(&with_data("hunter2!")),
            format!("{at} is no base64 of a text; plain text belongs in stringData")
        );
        assert_eq!(fault(&with_data(&STANDARD.encode("hunter2"))), format!("{at} is no JSON: line 1, column 1"));
        assert!(fault("type: kubernetes.io/dockerconfigjson").starts_with("data: a Secret of type"));
        assert_eq!(
            fault("type: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: 12}"),
            format!("{at} must be text")
        );
    }

    #[test]
    fn what_is_remembered_on_disk_and_shown_holds_no_credentials() {
        let template =
            "---\napiVersion: wasmplane.io/v1alpha1\nkind: ProxyTemplate\nmetadata: {name: t}\nspec: {listeners: []}\n";
        let loaded = load(&format!("{}\n{template}", with_data(&STANDARD.encode(CONFIG))));
        let said = format!("{loaded:?}");
        assert!(!said.contains("hunter2") && !said.contains(&STANDARD.encode(CONFIG)), "{said}");
        assert_eq!((loaded.last_good.len(), loaded.templates.len()), (1, 1));
        let alone = load(&with_data(&STANDARD.encode(CONFIG)));
        assert!(alone.last_good.is_empty());
    }

    #[test]
    fn a_secret_that_is_edited_into_a_broken_one_stays_as_it_was() {
        let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: pull, namespace: shop}\n";
        let mut memory = Memory::default();
        for data in [STANDARD.encode(CONFIG), "?".to_owned()] {
            let text = format!("{head}{}", with_data(&data)).into_bytes();
            let files = [(Path::new("a.yaml").to_owned(), Seen::Read(text))].into();
            let loaded = memory.update(Scan { files, ..Scan::default() });
            assert_eq!(loaded.secrets.len(), 1);
        }
    }
}
