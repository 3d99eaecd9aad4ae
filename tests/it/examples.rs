//! `examples/` and `envoy-bootstrap/` as users find them: everything loads, assembles, and does where the README says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wasmplane::commands::explain::answer;
use wasmplane::compile::Workload;
use wasmplane::model::ModuleLocation;
use wasmplane::modules::{Verdict, inspect};
use wasmplane::protobuf::from_json;
use wasmplane::sources::{Loaded, cross_check, load};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The folders that hold manifests, each an example of its own.
fn examples() -> Vec<PathBuf> {
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    let mut folders = files(&repository("examples"));
    folders.retain(|folder| folder.is_dir() && files(folder).iter().any(is_yaml));
    assert!(folders.len() > 10, "{folders:?}");
    folders
}

/// The text of each module, by the name under which `examples/run` puts it into the module folder.
fn module_sources() -> BTreeMap<String, PathBuf> {
    let mut sources = vec![("hello.wasm".to_owned(), repository("examples/hello/plugin.wat"))];
    for source in files(&repository("examples/modules")) {
        sources.push((name(&source.with_extension("wasm")), source));
    }
    sources.into_iter().collect()
}

fn load_example(folder: &Path) -> Loaded {
    load(&[folder.to_owned()])
}

#[test]
fn every_manifest_loads_without_a_fault_or_a_warning() {
    for folder in examples() {
        let loaded = load_example(&folder);
        assert!(loaded.faults.is_empty() && loaded.warnings.is_empty(), "{:#?} {:#?}", loaded.faults, loaded.warnings);
        assert_eq!(cross_check(&loaded, "istio-system"), []);
        assert!(!loaded.plugins.is_empty() && loaded.templates.len() == 1, "{}", folder.display());
    }
}

#[test]
fn every_module_assembles_and_every_known_envoy_takes_it() {
    for (module, source) in module_sources() {
        let report = inspect(&wat::parse_file(&source).unwrap_or_else(|error| panic!("{module}: {error}")));
        assert!(report.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Accepted), "{module}: {report:#?}");
    }
}

#[test]
fn every_bootstrap_is_one_that_envoy_can_read() {
    let bootstraps = files(&repository("envoy-bootstrap")).into_iter().filter(|file| !name(file).ends_with(".md"));
    for file in bootstraps {
        let bootstrap: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        if let Err(error) = from_json("envoy.config.bootstrap.v3.Bootstrap", &bootstrap) {
            panic!("{}: {error}", file.display());
        }
    }
}

#[test]
fn every_plugin_names_a_module_that_is_there_and_every_module_is_used() {
    let mut used = BTreeSet::new();
    for plugin in examples().iter().flat_map(|folder| load_example(folder).plugins.into_values()) {
        let Some(module) = plugin.module() else { continue };
        let path = match &module.location {
            ModuleLocation::File(path) => path,
            // What a registry has is not ours to say.
            ModuleLocation::Oci(_) => continue,
            ModuleLocation::Http(url) => panic!("{url}"),
        };
        assert_eq!(path.parent(), Some(Path::new("/tmp/wasmplane/modules")));
        used.insert(name(path));
    }
    assert_eq!(used, module_sources().into_keys().collect());
}

#[test]
fn the_readme_knows_every_example() {
    let readme = fs::read_to_string(repository("examples/README.md")).unwrap();
    for folder in examples() {
        let name = name(&folder);
        assert!(readme.contains(&format!("examples/run {name}")), "examples/README.md has no `examples/run {name}`");
    }
}

/// What the proxy that `examples/run` starts gets: `listener: http plugins | network plugins`.
fn explained(example: &str) -> Vec<String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let workload = Workload {
        namespace: "shop".into(),
        labels: [label("app", "web"), label("gateway.networking.k8s.io/gateway-name", "edge")].into(),
        root_namespace: "istio-system".into(),
    };
    let answer = answer(&workload, &load_example(&repository("examples").join(example)));
    let words = |ids: &Value| {
        let ids = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    let line = |listener: &Value| {
        let name = listener["name"].as_str().unwrap();
        format!("{name}: {} | {}", words(&listener["http"]), words(&listener["network"])).trim_end().to_owned()
    };
    answer["listeners"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn plugins_stand_where_the_comments_of_their_manifests_say() {
    let order = "in-8080: shop/auth shop/tenant shop/quota shop/count shop/early shop/audit shop/late |";
    let scope = "in-8080: shop/web-only shop/whole-namespace istio-system/all-web istio-system/everywhere |";
    let native = "in-8080: shop/before-jwt shop/before-rbac shop/before-stats shop/before-router |";
    let expected: [(&str, &[&str]); 8] = [
        ("order", &[order]),
        ("scope", &[scope]),
        (
            "match",
            &[
                "in-8080: shop/all shop/either shop/port shop/server |",
                "in-8081: shop/all shop/server |",
                "out-8082: shop/all shop/client shop/either |",
                "gw-8083: shop/all shop/client |",
            ],
        ),
        ("fail-strategy", &["close: shop/close |", "open: shop/open |", "reload: shop/reload |"]),
        ("network", &["tcp:  | shop/no-quit", "http: shop/trail | shop/no-delete"]),
        ("lua", &["in-8080: trafficextension:shop/before trafficextension:shop/script shop/after |"]),
        ("gateway", &["edge-8080: shop/for-edge |"]),
        ("native", &[native]),
    ];
    for (example, listeners) in expected {
        assert_eq!(explained(example), listeners, "{example}");
    }
}
