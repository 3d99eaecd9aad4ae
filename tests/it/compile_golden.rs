//! Manifests in, resources out: `tests/golden/compile/NAME.yaml`, for a proxy `shop` with `app: web`, in each mode.
//! `INSTA_UPDATE=always` rewrites the golden files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use wasmplane::compile::{Compiled, compile, select};
use wasmplane::model::{
    Capabilities, Code, Digest, Module, ModuleState, Plugin, PluginEntry, PluginRevision, Proxy, ProxyFacts,
};
use wasmplane::protobuf::to_json;
use wasmplane::snapshot::{Extension, Resource, ResourceType};
use wasmplane::sources::{self, Loaded};

fn proxy(capabilities: Capabilities) -> Proxy {
    Proxy {
        node_id: "golden".into(),
        name: String::new(),
        cluster: String::new(),
        namespace: "shop".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        version: None,
        capabilities,
    }
}

/// Every plugin that has a module has a few bytes that say whose they are.
fn entry(plugin: &Arc<Plugin>) -> PluginEntry {
    let bytes = Bytes::from(format!("module of {}", plugin.id));
    let module = Module { digest: Digest::of(&bytes), bytes, refusals: Vec::new(), root_id: None };
    let code = plugin.module().map_or(Code::InSpecification, |_| Code::Module(Arc::new(module)));
    PluginEntry {
        desired: plugin.clone(),
        module: ModuleState::Ready(code.clone()),
        running: Some(Arc::new(PluginRevision::new(plugin.clone(), code))),
        good: Vec::new(),
    }
}

pub fn compiled(loaded: &Loaded, capabilities: Capabilities) -> Compiled {
    let entries: Vec<_> = loaded.plugins.values().map(entry).collect();
    let facts = ProxyFacts::default();
    let templates = loaded.templates.values();
    compile(&select(&proxy(capabilities), &facts, "istio-system", entries.iter(), templates, &[]))
}

pub fn message(resource: &Resource) -> Value {
    let name = resource.resource_type.type_url().trim_start_matches("type.googleapis.com/");
    to_json(name, &resource.body.to_bytes())
}

fn shown(compiled: &Compiled) -> Value {
    let snapshot = &compiled.snapshot;
    let of = |resource_type| -> BTreeMap<_, _> {
        let all = snapshot.all(resource_type).unwrap();
        all.iter().map(|(name, resource)| (name.clone(), message(resource))).collect()
    };
    let references = snapshot.listeners.values().flat_map(|listener| &listener.references);
    let names: BTreeSet<_> =
        references.filter(|(kind, _)| *kind == ResourceType::ExtensionConfig).map(|(_, name)| name.clone()).collect();
    let extension = |name: &str| match snapshot.extensions.resolve(name) {
        Some(Extension::Known(resource)) => message(&resource)["typed_config"].clone(),
        other => panic!("{name}: {other:?}"),
    };
    let carried = compiled.plugins.iter().map(|it| {
        let carriers: Vec<_> = it.carriers.iter().map(|it| format!("{:?} {}", it.resource_type, it.name)).collect();
        json!({"plugin": it.plugin.to_string(), "listeners": it.listeners, "carriers": carriers})
    });
    json!({
        "listeners": of(ResourceType::Listener),
        "clusters": of(ResourceType::Cluster),
        "routes": of(ResourceType::Route),
        "endpoints": of(ResourceType::Endpoint),
        "extensions": names.iter().map(|name| (name.to_string(), extension(name))).collect::<BTreeMap<_, _>>(),
        "plugins": carried.collect::<Vec<_>>(),
        "problems": compiled.problems.iter().map(|it| format!("{}: {}", it.resource, it.reason)).collect::<Vec<_>>(),
    })
}

fn modes(path: &Path) -> BTreeMap<&'static str, Value> {
    let loaded = sources::load(&[path.to_owned()]);
    assert_eq!(loaded.faults, [], "{}", path.display());
    [("chain", true, true), ("filter", false, true), ("no_wasm", false, false)]
        .map(|(mode, chain, wasm)| (mode, shown(&compiled(&loaded, Capabilities { chain, wasm }))))
        .into()
}

#[test]
fn manifests_become_the_resources_in_the_golden_files() {
    insta::glob!("../golden/compile", "*.yaml", |path| {
        for (mode, resources) in modes(path) {
            insta::with_settings!({
                snapshot_path => "../golden/compile",
                prepend_module_to_snapshot => false,
                snapshot_suffix => format!("{}.{mode}", path.file_stem().unwrap().display()),
                omit_expression => true,
            }, { insta::assert_json_snapshot!("resources", resources) });
        }
    });
}
