//! What of manifests may leave this machine, to be judged elsewhere: all that is ours, and of everything else only what it
//! is called. Credentials stay, wherever they stand: in a Secret, in its annotations, in a list, in text that is broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{declarations, is_of_our_groups, json_text};
use super::yaml::{BrokenText, Key, Node, Value};
use super::{Finding, about_file, manifest};

/// Manifests without credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// By the paths of the files: whoever reads them finds the resources that are ours, and their faults.
    pub texts: BTreeMap<PathBuf, String>,
    /// Faults of what is not in the texts: of Secrets, and of files that are broken (these name no resource).
    pub faults: Vec<Finding>,
}

/// No document, and no end of one: stands for the text of a file that is broken.
const BROKEN: &str = "{";

/// The texts of files as others may see them.
pub fn share(texts: BTreeMap<PathBuf, Vec<u8>>) -> Shared {
    let mut shared = Shared::default();
    for (path, bytes) in texts {
        let (text, faults) = share_file(&path, &bytes).unwrap_or_else(|BrokenText { place, reason }| {
            let fault = Finding { line: place.line, column: place.column, ..about_file(&path, reason) };
            (BROKEN.to_owned(), vec![fault])
        });
        shared.texts.insert(path, text);
        shared.faults.extend(faults);
    }
    shared
}

fn share_file(path: &Path, bytes: &[u8]) -> Result<(String, Vec<Finding>), BrokenText> {
    manifest::documents(manifest::text(bytes)?, |documents| {
        let text = documents.iter().map(|document| format!("---\n{}\n", json_text(&told(document, false)))).collect();
        let declared = documents.iter().flat_map(|document| declarations(path, document));
        let faults = declared.flat_map(|declaration| declaration.faults);
        (text, faults.filter(|fault| fault.resource.starts_with("Secret")).collect())
    })
}

/// A document as others may see it. `is_of_ours`: an item of a list of ours, which need not say what it is.
fn told(document: &Node, is_of_ours: bool) -> Node {
    let Value::Map(entries) = &document.value else {
        // Whatever it is, it is no resource.
        return Node { value: Value::List(Vec::new()), place: document.place };
    };
    let kind = document.get("kind").and_then(Node::as_text);
    let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
    let is_ours = is_of_our_groups(document) || (is_of_ours && kind.is_none());
    if is_ours && !is_list {
        return document.clone();
    }
    let told = entries.iter().filter_map(|(key, node)| {
        let node = match (key.text.as_str(), &node.value) {
            ("apiVersion" | "kind", Value::Text(_)) => node.clone(),
            ("metadata", Value::Map(entries)) => called(entries, node),
            ("items", Value::List(items)) if is_list => {
                let items = items.iter().map(|item| told(item, is_ours)).collect();
                Node { value: Value::List(items), place: node.place }
            }
            _ => return None,
        };
        Some((key.clone(), node))
    });
    Node { value: Value::Map(told.collect()), place: document.place }
}

fn called(entries: &[(Key, Node)], metadata: &Node) -> Node {
    let is_name = |(key, node): &&(Key, Node)| {
        matches!(key.text.as_str(), "name" | "namespace") && matches!(node.value, Value::Text(_))
    };
    Node { value: Value::Map(entries.iter().filter(is_name).cloned().collect()), place: metadata.place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::load_texts;

    const PLUGIN: &str = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a, namespace: shop}\n\
                          spec: {url: oci://r.test/a, pluginConfig: {n: 12345678901234567890, t: \"0644\"}}\n";

    /// With a credential in each place that holds one.
    const SECRET: &str = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata:\n  name: pull\n  \
                          namespace: shop\n  annotations: {last-applied: hunter2}\n  labels: {a: hunter2}\n\
                          stringData: {.dockerconfigjson: '{\"auths\": {\"r.test\": {\"auth\": \"dTpodW50ZXIy\"}}}'}\n\
                          data: {b: aHVudGVyMg==}\nhunter2: x\n";

    fn shared(text: &str) -> (String, Vec<Finding>) {
        let Shared { texts, faults } = share([(PathBuf::from("a.yaml"), text.as_bytes().to_vec())].into());
        (texts.into_values().collect(), faults)
    }

    fn assert_silent(text: &str) {
        for secret in ["hunter2", "dTpodW50ZXIy", "aHVudGVyMg=="] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn a_secret_is_named_and_nothing_of_it_is_told() {
        let list = |kind: &str, items: &[&str]| {
            let item = |item: &&str| format!("- {}\n", item.trim_end().replace('\n', "\n  "));
            format!("apiVersion: v1\nkind: {kind}\nitems:\n{}", items.iter().map(item).collect::<String>())
        };
        let untyped = SECRET.replace("apiVersion: v1\nkind: Secret\n", "");
        let ours = list("WasmPluginList", &[SECRET, PLUGIN])
            .replace(": v1\nkind: Wasm", ": extensions.istio.io/v1alpha1\nkind: Wasm");
        let sealed = SECRET.replace("v1\nkind: Secret", "bitnami.com/v1\nkind: SealedSecret");
        for text in [
            format!("{SECRET}---\n{PLUGIN}"),
            list("List", &[SECRET, PLUGIN]),
            list("SecretList", &[&untyped, SECRET]) + "---\n" + PLUGIN,
            ours,
            format!("{sealed}---\n{PLUGIN}---\n{}", untyped.replace("spec", "x")),
            format!("{PLUGIN}---\n- hunter2\n---\nhunter2\n"),
        ] {
            let (told, _) = shared(&text);
            assert_silent(&told);
            // What is ours arrives as it is.
            let read = |text: &str| load_texts([("a.yaml".into(), text.as_bytes().to_vec())].into()).plugins;
            assert_eq!((read(&told), read(&told).len()), (read(PLUGIN), 1), "{told}");
        }
    }

    #[test]
    fn text_that_is_broken_is_not_sent_and_its_fault_is_told_from_here() {
        for broken in [format!("{SECRET}  bad: [\n"), format!("a: hunter2\n{SECRET}\u{0}")] {
            let (told, faults) = shared(&broken);
            assert_eq!((told.as_str(), faults.len()), (BROKEN, 1));
            assert!(faults[0].line > 1 && faults[0].resource.is_empty() && faults[0].reason.contains("YAML"));
            let judged = load_texts([("a.yaml".into(), told.into_bytes())].into());
            assert_eq!((judged.faults.len(), judged.faults[0].resource.as_str()), (1, ""));
        }
        let (told, faults) =
            share_file(Path::new("a.yaml"), b"\xff").map_or_else(|error| (error.reason, 0), |it| (it.0, 1));
        assert_eq!((told.as_str(), faults), ("is no UTF-8 text", 0));
    }

    #[test]
    fn the_faults_of_secrets_are_told_from_here_and_those_of_plugins_from_there() {
        let text = format!("{}---\n{}", SECRET.replace("auths", "auth"), PLUGIN.replace("url", "urll"));
        let (told, faults) = shared(&text);
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.resource == "Secret shop/pull"), "{faults:?}");
        let judged = load_texts([("a.yaml".into(), told.into_bytes())].into());
        assert!(judged.faults.iter().all(|fault| fault.resource == "WasmPlugin shop/a"), "{:?}", judged.faults);
        assert!(!judged.faults.is_empty());
    }

    #[test]
    fn nothing_stays_nothing() {
        assert_eq!(shared("# only words\n"), (String::new(), Vec::new()));
    }
}
