//! `metadata`: who a resource is, how old, and what its annotations say.

use jiff::Timestamp;

use super::fields::{Field, Object, shown_text};
use super::names::{is_dns_label, is_dns_subdomain, is_label_key, is_label_value};
use super::report::Report;

#[derive(Default)]
pub(super) struct Metadata<'n> {
    /// Empty where it is missing; `is_sound` says whether it and the namespace are fit for use.
    pub name: &'n str,
    pub namespace: &'n str,
    pub is_sound: bool,
    pub created: Option<Timestamp>,
    pub annotations: Option<Object<'n>>,
}

/// What Kubernetes itself puts there.
const METADATA: [&str; 17] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "clusterName",
    "initializers",
];

/// The largest sum of all keys and values of annotations that Kubernetes takes.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Reads it, as strictly as an API server would.
pub(super) fn read<'n>(root: &Object<'n>, report: &mut Report<'_>) -> Metadata<'n> {
    let metadata = root.required("metadata", report).and_then(|field| field.object(&METADATA, report));
    let Some(metadata) = metadata else { return Metadata { namespace: "default", ..Metadata::default() } };
    let name = metadata.required("name", report);
    let is_named = name.as_ref().is_some_and(|field| is_name(field, report));
    // kubectl, too, takes an empty namespace for none.
    let namespace = metadata.get("namespace").filter(|field| field.node.as_text() != Some(""));
    let is_placed = namespace.as_ref().is_none_or(|field| is_namespace(field, report));
    if let Some(labels) = metadata.get("labels") {
        check_labels(&labels, report);
    }
    if let Some(annotations) = metadata.get("annotations") {
        check_annotations(&annotations, report);
    }
    let text = |field: Option<Field<'n>>| field.and_then(|field| field.node.as_text());
    Metadata {
        name: text(name).unwrap_or_default(),
        namespace: text(namespace).unwrap_or("default"),
        is_sound: is_named && is_placed,
        created: metadata.get("creationTimestamp").and_then(|field| timestamp(&field, report)),
        annotations: metadata.get("annotations").and_then(|field| field.as_object()),
    }
}

fn is_name(field: &Field<'_>, report: &mut Report<'_>) -> bool {
    let Some(text) = field.text(report) else { return false };
    if !is_dns_subdomain(text) {
        let shown = shown_text(text);
        report.fault(&field.path, format!("{shown} is no DNS subdomain (a-z, 0-9, \"-\" and \".\", at most 253)"));
    }
    is_dns_subdomain(text)
}

fn is_namespace(field: &Field<'_>, report: &mut Report<'_>) -> bool {
    let Some(text) = field.text(report) else { return false };
    if !is_dns_label(text) {
        let shown = shown_text(text);
        report.fault(&field.path, format!("{shown} is no DNS label (a-z, 0-9 and \"-\", at most 63)"));
    }
    is_dns_label(text)
}

fn check_labels(field: &Field<'_>, report: &mut Report<'_>) {
    for (key, value) in field.text_map(report).unwrap_or_default() {
        let path = format!("{}.{key}", field.path);
        check_key(&path, &key, &key, report);
        if !is_label_value(&value) {
            let shown = shown_text(&value);
            report.fault(&path, format!("{shown} cannot be a label's value: {QUALIFIED}, or nothing"));
        }
    }
}

fn check_annotations(field: &Field<'_>, report: &mut Report<'_>) {
    let annotations = field.text_map(report).unwrap_or_default();
    for key in annotations.keys() {
        // Other than in a label, the prefix may have capitals.
        check_key(&format!("{}.{key}", field.path), key, &key.to_ascii_lowercase(), report);
    }
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        report.fault(&field.path, format!("have {bytes} bytes together, at most {MAX_ANNOTATION_BYTES} are allowed"));
    }
}

const QUALIFIED: &str = "at most 63 of letters, digits, \"-\", \"_\" and \".\", with a letter or digit at both ends";

fn check_key(path: &str, key: &str, judged: &str, report: &mut Report<'_>) {
    if !is_label_key(judged) {
        let shown = shown_text(key);
        report.fault(path, format!("{shown} cannot be a key: {QUALIFIED}, after a DNS subdomain and \"/\" if need be"));
    }
}

fn timestamp(field: &Field<'_>, report: &mut Report<'_>) -> Option<Timestamp> {
    let text = field.text(report)?;
    let parsed = is_rfc_3339(text).then(|| text.parse().ok()).flatten();
    if parsed.is_none() {
        report.fault(&field.path, format!("{} is no time, such as 2026-01-31T12:00:00Z", shown_text(text)));
    }
    parsed
}

/// Whether it looks like `2026-01-31T12:00:00Z`, the one form of all that a time may have that Kubernetes takes.
fn is_rfc_3339(text: &str) -> bool {
    const LENGTH: usize = "0000-00-00T00:00:00".len();
    let like = |text: &str, form: &str| {
        let is_alike = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
        text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_alike)
    };
    let Some((time, rest)) = text.split_at_checked(LENGTH) else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let has_digits = rest.starts_with(zone) || rest.len() > zone.len() + 1;
    like(time, "0000-00-00T00:00:00")
        && has_digits
        && ["Z", "+00:00", "-00:00"].into_iter().any(|form| like(zone, form))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::sources::document::Declaration;
    use crate::sources::manifest;

    fn declaration(metadata: &str, url: &str) -> Declaration {
        let head = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n";
        let text = format!("{head}metadata: {metadata}\nspec: {{url: '{url}'}}\n");
        manifest::parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations.remove(0)
    }

    fn told(metadata: &str) -> Vec<String> {
        let faults = declaration(metadata, "r/a").faults;
        faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.reason)).collect()
    }

    #[test]
    fn labels_and_annotations_have_the_shapes_that_an_api_server_takes() {
        let sound = "{name: a, labels: {app.kubernetes.io/name: x_y.z, a: ''}, annotations: {App.io/x: 'a b\\n'}}";
        assert_eq!(told(sound), Vec::<String>::new());
        let shape = "at most 63 of letters, digits, \"-\", \"_\" and \".\", with a letter or digit at both ends";
        let key = |path: &str, key: &str| {
            format!(
                "metadata.{path}.{key}: \"{key}\" cannot be a key: {shape}, after a DNS subdomain and \"/\" if need be"
            )
        };
        assert_eq!(
            told("{name: a, labels: {a b: c, App.io/x: '', d: -e}, annotations: {a/b/c: d}}"),
            [
                key("labels", "App.io/x"),
                key("labels", "a b"),
                format!("metadata.labels.d: \"-e\" cannot be a label's value: {shape}, or nothing"),
                key("annotations", "a/b/c"),
            ]
        );
        let large = format!("{{name: a, annotations: {{a: {}}}}}", "x".repeat(262_144));
        assert_eq!(told(&large), ["metadata.annotations: have 262145 bytes together, at most 262144 are allowed"]);
    }

    #[test]
    fn only_what_kubernetes_writes_is_a_time() {
        let is_time = |text: &str| told(&format!("{{name: a, creationTimestamp: '{text}'}}")).is_empty();
        for text in ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00+02:00"] {
            assert!(is_time(text), "{text}");
        }
        for text in ["2024-01-01 00:00:00Z", "2024-01-01T00:00Z", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00.Z", ""] {
            assert!(!is_time(text), "{text}");
        }
    }

    #[test]
    fn faults_of_the_spec_are_told_beside_those_of_the_metadata() {
        let fields = |metadata: &str| {
            let declaration = declaration(metadata, "ftp://h/a");
            assert!(declaration.identity.is_none() && declaration.content.is_none());
            declaration.faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        assert_eq!(fields("{name: A_b, namespace: c.d}"), ["metadata.name", "metadata.namespace", "spec.url"]);
        assert_eq!(fields("{namespace: shop}"), ["metadata.name", "spec.url"]);
        assert_eq!(fields("x"), ["metadata", "spec.url"]);
    }

    #[test]
    fn an_empty_namespace_is_the_default_one() {
        let identity = declaration("{name: a, namespace: ''}", "r/a").identity.unwrap();
        assert_eq!(identity.to_string(), "WasmPlugin default/a");
    }
}
