//! A file's text, turned into all that it declares.

use std::path::Path;
use std::thread;

use super::document::{Declaration, declarations};
use super::yaml::{self, BrokenText, Node, Place};

/// The largest file that is read.
pub(super) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A level of nesting takes some 40 KiB in a debug build. Memory that is not touched costs nothing.
const STACK_BYTES: usize = yaml::MAX_DEPTH * 128 * 1024;

/// A file that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Manifest {
    /// No documents at all: nobody's wish to delete anything, more likely a write that was cut off.
    pub is_empty: bool,
    /// In the order of the file.
    pub declarations: Vec<Declaration>,
}

/// Reads `bytes`; text that is broken anywhere is refused whole, with one reason.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Manifest, BrokenText> {
    parse_text(file, text(bytes)?)
}

/// The text of a file's bytes.
pub(super) fn text(bytes: &[u8]) -> Result<&str, BrokenText> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(BrokenText { place: Place::default(), reason: too_large(bytes.len() as u64) });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        BrokenText { place: Place { line, column: 0 }, reason: "is no UTF-8 text".to_owned() }
    })
}

/// Reads `text`, of whatever length.
pub(super) fn parse_text(file: &Path, text: &str) -> Result<Manifest, BrokenText> {
    documents(text, |documents| Manifest {
        is_empty: documents.is_empty(),
        declarations: documents.iter().flat_map(|document| declarations(file, document)).collect(),
    })
}

/// What `read` makes of all documents of `text`. It may be recursive, as the parser is.
pub(super) fn documents<T: Send>(text: &str, read: impl FnOnce(Vec<Node>) -> T + Send) -> Result<T, BrokenText> {
    apart(|| yaml::parse(text).map(read))
}

/// Parses on a thread of its own: nobody knows whose thread this is, and a deep document needs more stack than most
/// threads have. A parser that crashes costs its own file and no other.
fn apart<T: Send>(parse: impl FnOnce() -> Result<T, BrokenText> + Send) -> Result<T, BrokenText> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("manifest".to_owned()).stack_size(STACK_BYTES);
        let parsing = thread.spawn_scoped(scope, parse);
        let parsing = parsing.map_err(|error| BrokenText {
            place: Place::default(),
            reason: format!("cannot be read for now: {error}"),
        })?;
        // The panic's own words are in the log by now.
        parsing.join().unwrap_or_else(|_| {
            let reason = "cannot be read: reading it crashed, which is a fault of wasmplane; please report it";
            Err(BrokenText { place: Place::default(), reason: reason.to_owned() })
        })
    })
}

pub(super) fn too_large(bytes: u64) -> String {
    format!("has {bytes} bytes, at most {MAX_FILE_BYTES} are read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Finding;

    fn parse_one(text: &str) -> Declaration {
        let mut declarations = parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations;
        assert_eq!(declarations.len(), 1, "{declarations:#?}");
        declarations.remove(0)
    }

    fn fault(text: &str) -> BrokenText {
        parse(Path::new("a.yaml"), text.as_bytes()).unwrap_err()
    }

    fn told(findings: &[Finding]) -> Vec<(usize, &str, &str)> {
        findings.iter().map(|found| (found.line, found.field.as_str(), found.reason.as_str())).collect()
    }

    #[test]
    fn what_is_no_resource_is_told_what_it_lacks() {
        let reason = |text: &str| parse_one(text).faults[0].reason.clone();
        let start = "is no Kubernetes resource: ";
        let both = "apiVersion and kind must be text, and there is no ";
        assert_eq!(reason("- a"), format!("{start}it must be an object with apiVersion and kind"));
        assert_eq!(reason("apiVersion: v1\nKind: List"), format!("{start}{both}kind (here it is \"Kind\")"));
        assert_eq!(reason("a: b"), format!("{start}{both}apiVersion and no kind"));
    }

    #[test]
    fn a_file_that_crashes_the_parser_is_told_and_stops_no_other() {
        let reason = apart::<()>(|| panic!("a bug in the parser")).unwrap_err().reason;
        assert!(reason.starts_with("cannot be read: reading it crashed"), "{reason}");
    }

    #[test]
    fn lines_are_counted_the_same_with_carriage_returns_and_a_byte_order_mark() {
        let text = "\u{feff}apiVersion: extensions.istio.io/v1alpha1\r\nkind: WasmPlugin\r\nmetadata: {name: a}\r\n\
                    spec:\r\n  url: r/a\r\n  phase: authn\r\n";
        assert_eq!((parse_one(text).faults[0].line, parse_one(text).faults[0].column), (6, 3));
    }

    mod whatever_the_bytes {
        use proptest::prelude::*;

        use super::*;

        /// What manifests are made of, and what they are broken with.
        const PIECES: [&str; 40] = [
            "apiVersion: ",
            "extensions.istio.io/v1alpha1",
            "wasmplane.io/v1alpha1",
            "kind: ",
            "WasmPlugin",
            "ProxyTemplate",
            "TrafficExtension",
            "List",
            "items:",
            "metadata: ",
            "{name: a}",
            "annotations: ",
            "wasmplane.io/disabled",
            "spec:",
            "url: ",
            "match: ",
            "ports: ",
            "number: ",
            "envoy:",
            "listeners:",
            "\n",
            "\n  ",
            "\n    ",
            "- ",
            "---\n",
            "\t",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "'",
            "\"",
            "&a ",
            "*a",
            "<<: ",
            "|\n",
            "!!binary ",
            "null",
            "99999999999999999999",
        ];

        proptest! {
            #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn nothing_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
                let _ = parse(Path::new("a.yaml"), &bytes);
            }

            #[test]
            fn nothing_panics_on_what_looks_like_a_manifest(
                pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40)
            ) {
                let _ = parse(Path::new("a.yaml"), pieces.concat().as_bytes());
            }

            /// Whatever stands in a field, it is read or refused.
            #[test]
            fn nothing_panics_on_a_value_in_the_wrong_place(
                kind in proptest::sample::select(&["WasmPlugin", "TrafficExtension"][..]),
                field in proptest::sample::select(&["url", "wasm", "lua", "match", "selector", "targetRefs", "priority", "vmConfig"][..]),
                value in proptest::sample::select(&["1", "''", "[]", "{}", "[null]", "[{}]", "{matchLabels: []}", "1e99", "{url: 1}", "[[1]]"][..]),
            ) {
                let text = format!(
                    "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{field}: {value}}}\n"
                );
                let declared = parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations;
                prop_assert_eq!(declared.len(), 1);
                prop_assert!(declared[0].content.is_some() || !declared[0].faults.is_empty());
            }
        }
    }

    #[test]
    fn nesting_has_a_limit_that_the_stack_can_bear() {
        let nested = |depth: usize| format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth));
        assert!(parse(Path::new("a.yaml"), nested(120).as_bytes()).is_ok());
        assert!(fault(&nested(100_000)).reason.starts_with("broken YAML: "));
        assert!(fault(&"[".repeat(100_000)).reason.starts_with("broken YAML: "));
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        assert_eq!(fault(&"#".repeat(5_000_000)).reason, "has 5000000 bytes, at most 4194304 are read");
        let broken = parse(Path::new("a.yaml"), b"a: 1\nb: \xff\n").unwrap_err();
        assert_eq!((broken.place.line, broken.reason.as_str()), (2, "is no UTF-8 text"));
    }

    #[test]
    fn a_file_may_hold_thousands_of_resources() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\n".repeat(2_000);
        assert!(parse(Path::new("a.yaml"), text.as_bytes()).is_ok());
    }

    #[test]
    fn a_list_is_taken_apart() {
        let plugin =
            "apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: a}, spec: {url: r/a}";
        let bare = "metadata: {name: b}, spec: {url: r/b}";
        let text = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{{plugin}}}\n- {{apiVersion: apps/v1, kind: Deployment}}\n---\n\
             apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPluginList\nitems:\n- {{{bare}}}\n"
        );
        let declarations = parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations;
        let names: Vec<_> = declarations.iter().map(|found| found.identity.as_ref().unwrap().to_string()).collect();
        assert_eq!(names, ["WasmPlugin default/a", "WasmPlugin default/b"]);
        assert!(declarations.iter().all(|found| found.content.is_some()));
    }

    #[test]
    fn other_peoples_resources_are_passed_over_but_not_a_slip_of_the_finger() {
        let text = "apiVersion: v1\nkind: Secret\n---\napiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\n";
        assert_eq!(parse(Path::new("a.yaml"), text.as_bytes()).unwrap().declarations, []);
        let slip = parse_one("apiVersion: extension.istio.io/v1alpha1\nkind: WasmPlugin\n");
        assert!(slip.warnings[0].reason.ends_with("did you mean \"extensions.istio.io\"?"), "{slip:?}");
    }

    #[test]
    fn kinds_of_our_groups_are_known_or_refused() {
        let of_kind = |kind: &str| {
            let found = parse_one(&format!("apiVersion: {kind}\nmetadata: {{name: a}}\n"));
            (found.faults[0].resource.clone(), found.faults[0].field.clone(), found.faults[0].reason.clone())
        };
        let told = |resource: &str, field: &str, reason: &str| (resource.into(), field.into(), reason.into());
        assert_eq!(
            of_kind("extensions.istio.io/v1alpha1\nkind: WasmPlugn"),
            told("WasmPlugn a", "kind", "extensions.istio.io has no kind \"WasmPlugn\", did you mean \"WasmPlugin\"?")
        );
        assert_eq!(
            of_kind("extensions.istio.io/v1\nkind: WasmPlugin"),
            told("WasmPlugin a", "apiVersion", "version \"v1\" is not known, known is v1alpha1")
        );
        assert_eq!(
            of_kind("maistra.io/v1\nkind: ServiceMeshExtension"),
            told("ServiceMeshExtension default/a", "kind", "ServiceMeshExtension is not supported yet by this version")
        );
    }

    #[test]
    fn metadata_says_who_it_is() {
        let of = |metadata: &str| {
            parse_one(&format!(
                "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {metadata}\nspec: {{url: r/a}}\nstatus: {{x: 1}}\n"
            ))
        };
        assert!(
            of("{name: a.b, namespace: shop, uid: x, managedFields: [], creationTimestamp: null}").content.is_some()
        );
        let found = of("{namespace: shop}");
        assert_eq!((told(&found.faults), found.identity), (vec![(3, "metadata.name", "is required")], None));
        let found = of("{name: A_b}");
        assert_eq!(
            told(&found.faults),
            [(3, "metadata.name", "\"A_b\" is no DNS subdomain (a-z, 0-9, \"-\" and \".\", at most 253)")]
        );
        let found = of("{name: a, namespace: b.c, creationTimestamp: yesterday, lables: {}}");
        let fields: Vec<_> = found.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["metadata.lables", "metadata.namespace", "metadata.creationTimestamp"]);
    }
}
