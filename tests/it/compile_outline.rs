//! Manifests in, an outline of the listeners out: `tests/golden/outline/NAME.yaml` in every mode, one filter a line, for
//! every kind of listener. (`compile_golden` shows a few resources whole.) `INSTA_UPDATE=always` rewrites the files.
//!
//! A `?` is a filter whose configuration comes by ECDS; beside it the types that may come, and what holds until then.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use wasmplane::compile::Compiled;
use wasmplane::model::Capabilities;
use wasmplane::snapshot::{Extension, ResourceType};
use wasmplane::sources;

use crate::compile_golden::{compiled, message};

/// `envoy.extensions.filters.http.wasm.v3.Wasm` as `http.wasm`.
fn type_word(type_url: &Value) -> String {
    let name = type_url.as_str().unwrap().rsplit('/').next().unwrap();
    let words: Vec<_> = name.trim_start_matches("envoy.extensions.filters.").split('.').collect();
    words[..2].join(".")
}

/// What a filter's configuration does, in a word or two.
fn content(config: &Value) -> String {
    let members = config["default_filter_chain"]["filters"].as_array();
    match type_word(&config["@type"]).as_str() {
        "http.filter_chain" => {
            let named =
                |member: &Value| format!("{} {}", member["name"].as_str().unwrap(), content(&member["typed_config"]));
            let members: Vec<_> = members.into_iter().flatten().map(named).collect();
            format!("chain [{}]", members.join(", "))
        }
        "http.rbac" | "network.rbac" if config.get("rules").is_none() => "(allow)".into(),
        "http.rbac" | "network.rbac" => "(deny)".into(),
        word => format!("({word})"),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn write_filter(out: &mut String, indent: usize, filter: &Value) {
    let name = filter["name"].as_str().unwrap();
    let discovery = &filter["config_discovery"];
    if discovery.is_null() {
        let _ = writeln!(out, "{:indent$}  {name}", "");
        return;
    }
    let types: Vec<_> = items(&discovery["type_urls"]).iter().map(type_word).collect();
    let until = content(&discovery["default_config"]);
    let _ = writeln!(out, "{:indent$}? {name}: {}, else {until}", "", types.join("|"));
}

fn write_chain(out: &mut String, name: &str, chain: &Value) {
    let _ = writeln!(out, "  chain {name}");
    for filter in items(&chain["filters"]) {
        write_filter(out, 4, filter);
        let manager = &filter["typed_config"];
        for filter in items(&manager["http_filters"]) {
            write_filter(out, 8, filter);
        }
        for upgrade in items(&manager["upgrade_configs"]).iter().filter(|it| !items(&it["filters"]).is_empty()) {
            let _ = writeln!(out, "          upgrade {}", upgrade["upgrade_type"].as_str().unwrap());
            for filter in items(&upgrade["filters"]) {
                write_filter(out, 12, filter);
            }
        }
    }
}

fn write_mode(out: &mut String, compiled: &Compiled) {
    let snapshot = &compiled.snapshot;
    let mut names = BTreeSet::new();
    for (name, resource) in &snapshot.listeners {
        let listener = message(resource);
        let _ = writeln!(out, "listener {name}");
        for chain in items(&listener["filter_chains"]) {
            write_chain(out, chain["name"].as_str().unwrap(), chain);
        }
        if let Some(chain) = listener.get("default_filter_chain") {
            write_chain(out, "(default)", chain);
        }
        let others: Vec<_> =
            resource.references.iter().filter(|(it, _)| *it != ResourceType::ExtensionConfig).collect();
        for (resource_type, name) in others {
            let _ = writeln!(out, "  uses {resource_type:?} {name}");
        }
        let extensions = resource.references.iter().filter(|(it, _)| *it == ResourceType::ExtensionConfig);
        names.extend(extensions.map(|(_, name)| name.clone()));
    }
    for name in names {
        match snapshot.extensions.resolve(&name) {
            Some(Extension::Known(resource)) => {
                let _ = writeln!(out, "extension {name}: {}", content(&message(&resource)["typed_config"]));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    for problem in &compiled.problems {
        let _ = writeln!(out, "problem {}: {}", problem.resource, problem.reason);
    }
}

#[test]
fn every_kind_of_listener_is_filled_as_the_golden_files_say() {
    insta::glob!("../golden/outline", "*.yaml", |path| {
        let loaded = sources::load(&[path.to_owned()]);
        assert_eq!(loaded.faults, [], "{}", path.display());
        for (mode, chain, wasm) in [("chain", true, true), ("filter", false, true), ("no_wasm", true, false)] {
            let mut outline = String::new();
            write_mode(&mut outline, &compiled(&loaded, Capabilities { chain, wasm }));
            insta::with_settings!({
                snapshot_path => "../golden/outline",
                prepend_module_to_snapshot => false,
                snapshot_suffix => format!("{}.{mode}", path.file_stem().unwrap().display()),
                omit_expression => true,
            }, { insta::assert_snapshot!("listeners", outline) });
        }
    });
}
