//! What a real Envoy says of modules: many in one process, each in a listener of its own that is bound to no port.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::envoy::EnvoySetup;
use super::wait_until;

/// The names of the modules that an Envoy refuses; it takes the others.
///
/// Now and then an Envoy crashes that loads dozens of modules at once on a busy machine: they are then judged by two, and so
/// on. Panics on a module that crashes an Envoy alone.
pub async fn refused_of(setup: EnvoySetup, modules: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let mut refused = BTreeSet::new();
    let mut crowds = vec![modules.clone()];
    while let Some(mut crowd) = crowds.pop() {
        match judge(setup.clone(), &crowd).await {
            Some(names) => refused.extend(names),
            None => {
                assert!(crowd.len() > 1, "Envoy crashes on {:?}", crowd.keys());
                let middle = crowd.keys().nth(crowd.len() / 2).expect("it has more than one").clone();
                let half = crowd.split_off(&middle);
                crowds.extend([crowd, half]);
            }
        }
    }
    refused
}

/// `None` if the Envoy crashed.
async fn judge(setup: EnvoySetup, modules: &BTreeMap<String, Vec<u8>>) -> Option<BTreeSet<String>> {
    let folder = Folder::with(modules);
    let mut envoy = setup.concurrency(1).start_with(&folder.bootstrap).await;
    let has_answered = wait_until("Envoy's answer to its modules", async || {
        if envoy.has_ended() {
            return Some(false);
        }
        let taken = envoy.try_stat("listener_manager.lds.update_success").await?;
        let refused = envoy.try_stat("listener_manager.lds.update_rejected").await?;
        (taken + refused > 0).then_some(true)
    })
    .await;
    if !has_answered {
        return None;
    }
    let page = envoy.admin_get("/config_dump?resource=dynamic_listeners").await;
    let dump: Value = serde_json::from_str(&page).expect("Envoy writes JSON");
    let listeners = dump["configs"].as_array().expect("its listeners");
    let active = listeners.iter().filter(|listener| listener["active_state"].is_object());
    let taken: BTreeSet<_> = active.filter_map(|listener| listener["name"].as_str()).collect();
    let refused: BTreeSet<_> = modules.keys().filter(|name| !taken.contains(name.as_str())).cloned().collect();
    // Each refusal has a line; a module that was forgotten would have none.
    let log = envoy.log();
    for name in &refused {
        assert!(log.contains(&format!("Unable to create Wasm plugin {name}")), "{name} was neither taken nor refused");
    }
    Some(refused)
}

/// Whether an Envoy is ended by a signal when it loads this module. Panics if it goes on.
pub async fn crashes_on(setup: EnvoySetup, module: &[u8]) -> bool {
    let folder = Folder::with(&BTreeMap::from([("it".to_owned(), module.to_vec())]));
    setup.concurrency(1).end_of_a_failed_start(&folder.bootstrap).await.status.code().is_none()
}

/// Modules and listeners as files.
struct Folder {
    bootstrap: String,
    _folder: TempDir,
}

impl Folder {
    fn with(modules: &BTreeMap<String, Vec<u8>>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listeners = modules.iter().zip(1..).map(|((name, bytes), number)| {
            let file = folder.path().join(format!("{name}.wasm"));
            std::fs::write(&file, bytes).expect("the temporary folder is writable");
            listener(name, number, &file.display().to_string())
        });
        let listeners = json!({"resources": listeners.collect::<Vec<_>>()});
        let path = folder.path().join("lds.json");
        std::fs::write(&path, listeners.to_string()).expect("the temporary folder is writable");
        let bootstrap = json!({
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {"lds_config": {"path_config_source": {"path": path}}},
            "node": {"id": "judge", "cluster": "test"},
        });
        Self { bootstrap: bootstrap.to_string(), _folder: folder }
    }
}

/// The number takes the place of a port, which must be another one for each listener and is bound by none.
fn listener(name: &str, number: u16, file: &str) -> Value {
    let wasm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {"name": name, "vm_config": {
            "vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": file}},
        }},
    });
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "it",
        "route_config": {},
        "http_filters": [{"name": name, "typed_config": wasm}, {"name": "router", "typed_config": router}],
    });
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "bind_to_port": false,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": number}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    })
}
