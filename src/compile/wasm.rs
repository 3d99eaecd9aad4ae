//! One plugin revision as Envoy's Wasm filter.
//!
//! Invariant: the module's bytes are shared, never copied; equal revisions give equal bytes. The version is the same
//! whether a module travels inline or by digest: what the proxy runs is the same.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::BackoffStrategy;
use envoy_types::pb::envoy::extensions::wasm::v3::{FailurePolicy, ReloadConfig};
use prost::Message as _;
use serde_json::{Value, json};

use super::content::Content;
use super::{ModuleServer, type_urls};
use crate::model::{Code, EnvVarSource, FailStrategy, Module, PluginRevision, PluginType, WasmOptions, WasmProgram};
use crate::snapshot::{Attempt, Part, Rope, Version};

const RUNTIME: &str = "envoy.wasm.runtime.v8";

/// The filter of a revision, HTTP or network by the plugin's type; its module by digest where `by_digest` serves it.
pub fn filter(revision: &PluginRevision, program: &WasmProgram, by_digest: Option<&ModuleServer>) -> Content {
    let type_url = match revision.plugin.plugin_type {
        PluginType::Http => type_urls::HTTP_WASM,
        PluginType::Network => type_urls::NETWORK_WASM,
    };
    let served = revision.module().filter(|module| by_digest.is_some_and(|server| server.serves(module)));
    let remote = by_digest.zip(served).map(|(server, module)| remote(server, module, None));
    let fetched = served.map(|module| module.digest).into_iter().collect();
    Content { fetched, ..content(type_url, revision, program, remote) }
}

/// The same as a filter of the staging listener, which fetches the module: the very VM that the traffic's filter is going
/// to have, so that Envoy compiles the module once.
pub fn staged(revision: &PluginRevision, program: &WasmProgram, server: &ModuleServer, attempt: &Attempt) -> Content {
    let remote = revision.module().map(|module| remote(server, module, Some(attempt)));
    let staged = content(type_urls::HTTP_WASM, revision, program, remote);
    let source = json!({"staged": staged.version.as_str(), "token": attempt.token, "number": attempt.number});
    // What is accepted there proves nothing but that the module is held.
    Content { version: Version::of(&source), parts: Vec::new(), ..staged }
}

/// `AsyncDataSource.remote`.
fn remote(server: &ModuleServer, module: &Module, attempt: Option<&Attempt>) -> Rope {
    // envoy.config.core.v3.RemoteDataSource: http_uri = 1, sha256 = 2.
    let mut source = Rope::new();
    source.message(1, &Rope::encode(&server.source(&module.digest, attempt)));
    source.string(2, &module.digest.to_string());
    let mut code = Rope::new();
    code.message(2, &source);
    code
}

fn content(type_url: &str, revision: &PluginRevision, program: &WasmProgram, remote: Option<Rope>) -> Content {
    let plugin = &revision.plugin;
    let id = plugin.id.to_string();
    let vm_id = vm_id(revision, program);
    // serde_json writes compact text and sorts the keys of a map.
    let configuration = program.config.as_ref().map(|config| Value::from(config.clone()).to_string());
    let policy = failure_policy(plugin.fail_strategy);

    // envoy.extensions.wasm.v3.PluginConfig, inside Wasm.config = 1.
    let mut config = Rope::new();
    config.string(1, &id);
    config.string(2, revision.root_id());
    config.message(3, &vm_config(revision, program, &vm_id, remote));
    if let Some(text) = &configuration {
        config.message(4, &Rope::any("type.googleapis.com/google.protobuf.StringValue", &Rope::encode(text)));
    }
    config.push(PolicyField { failure_policy: policy.into() }.encode_to_vec().into());
    config.append(&options(&program.options));
    let mut wasm = Rope::new();
    wasm.message(1, &config);

    let source = json!({
        "type_url": type_url,
        "name": id,
        "root_id": revision.root_id(),
        "vm_id": vm_id,
        "runtime": RUNTIME,
        "vm": vm_source(revision, program),
        "configuration": configuration,
        "failure_policy": policy.as_str_name(),
        "allow_on_headers_stop_iteration": program.options.allow_on_headers_stop_iteration,
        "reload_backoff": program.options.reload_backoff.map(|backoff| json!([backoff.base, backoff.max])),
    });
    let part = Part { owner: id.into(), revision: revision.revision.to_string().into() };
    let version = Version::of(&source);
    Content { any: Rope::any(type_url, &wasm), version, parts: vec![part], fetched: Vec::new() }
}

/// `PluginConfig.failure_policy`.
#[derive(Clone, PartialEq, prost::Message)]
struct PolicyField {
    #[prost(int32, tag = "7")]
    failure_policy: i32,
}

/// The fields of `PluginConfig` that only some plugins have: `capability_restriction_config` = 6, `reload_config` = 8,
/// `allow_on_headers_stop_iteration` = 9.
fn options(options: &WasmOptions) -> Rope {
    let mut fields = Rope::new();
    if let Some(allowed) = &options.allowed_capabilities {
        let mut restriction = Rope::new();
        for capability in allowed {
            // map<string, SanitizationConfig>, whose values are empty.
            let mut entry = Rope::new();
            entry.string(1, capability);
            entry.message(2, &Rope::new());
            restriction.message(1, &entry);
        }
        fields.message(6, &restriction);
    }
    if let Some(backoff) = &options.reload_backoff {
        let strategy =
            BackoffStrategy { base_interval: duration(backoff.base), max_interval: backoff.max.and_then(duration) };
        let reload = ReloadConfig { backoff: Some(strategy) };
        fields.message(8, &Rope::encode(&reload));
    }
    if let Some(is_allowed) = options.allow_on_headers_stop_iteration {
        fields.message(9, &Rope::encode(&is_allowed));
    }
    fields
}

/// `None` for a length of time that protobuf cannot say: over 292 billion years.
fn duration(length: Duration) -> Option<envoy_types::pb::google::protobuf::Duration> {
    let seconds = i64::try_from(length.as_secs()).ok()?;
    let nanos = i32::try_from(length.subsec_nanos()).ok()?;
    Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos })
}

fn failure_policy(strategy: FailStrategy) -> FailurePolicy {
    match strategy {
        FailStrategy::FailClose => FailurePolicy::FailClosed,
        FailStrategy::FailOpen => FailurePolicy::FailOpen,
        FailStrategy::FailReload => FailurePolicy::FailReload,
    }
}

/// What a VM is made of, its configuration not being part of it (design, section 5, rule 6).
fn vm_source(revision: &PluginRevision, program: &WasmProgram) -> Value {
    let code = match &revision.code {
        Code::Module(module) => json!({"sha256": module.digest.to_string()}),
        Code::OnProxy(path) => json!({"filename": path.display().to_string()}),
        Code::InSpecification => Value::Null,
    };
    let env: Vec<_> = env(program)
        .into_iter()
        .map(|(name, value)| match value {
            Some(value) => json!([name, value]),
            None => json!([name]),
        })
        .collect();
    // Up to 1.39 Envoy keeps a VM's old restriction as long as its id stays the same (lab, rv1).
    let mut source = json!({"code": code, "env": env, "allowed_capabilities": program.options.allowed_capabilities});
    // And 1.36.4 what StopIteration means there. Absent is no field, so that other plugins keep the id that they had.
    if let Some(is_allowed) = program.options.allow_on_headers_stop_iteration {
        source["allow_on_headers_stop_iteration"] = is_allowed.into();
    }
    source
}

/// Each plugin has a VM of its own, and a new one when what the VM is made of changes.
fn vm_id(revision: &PluginRevision, program: &WasmProgram) -> String {
    let hash = Version::of(&vm_source(revision, program));
    format!("{}@{}", revision.id(), &hash.as_str()[..16])
}

/// Variables by name; `None` where Envoy's own environment has the value.
fn env(program: &WasmProgram) -> Vec<(&str, Option<&str>)> {
    let mut env: Vec<_> = program
        .env
        .iter()
        .map(|variable| match &variable.source {
            EnvVarSource::Inline(value) => (variable.name.as_str(), Some(value.as_str())),
            EnvVarSource::Host => (variable.name.as_str(), None),
        })
        .collect();
    env.sort_unstable();
    env
}

/// `envoy.extensions.wasm.v3.VmConfig`, by hand: prost would copy the module and shuffle the map.
fn vm_config(revision: &PluginRevision, program: &WasmProgram, vm_id: &str, remote: Option<Rope>) -> Rope {
    let is_remote = remote.is_some();
    let mut local = Rope::new();
    match &revision.code {
        // envoy.config.core.v3.DataSource: filename = 1, inline_bytes = 2.
        Code::Module(module) => local.bytes(2, module.bytes.clone()),
        Code::OnProxy(path) => local.string(1, &path.display().to_string()),
        Code::InSpecification => {}
    }
    let code = remote.unwrap_or_else(|| {
        let mut code = Rope::new();
        code.message(1, &local);
        code
    });

    let mut vm = Rope::new();
    vm.string(1, vm_id);
    vm.string(2, RUNTIME);
    vm.message(3, &code);
    if is_remote {
        // nack_on_code_cache_miss = 6: else the traffic's filter runs without its module until it is fetched (lab, exp04).
        vm.push(vec![6 << 3, 1].into());
    }
    let env = env(program);
    if !env.is_empty() {
        vm.message(7, &environment_variables(&env));
    }
    vm
}

fn environment_variables(env: &[(&str, Option<&str>)]) -> Rope {
    let mut variables = Rope::new();
    for (name, _) in env.iter().filter(|(_, value)| value.is_none()) {
        variables.string(1, name);
    }
    for (name, value) in env.iter().filter_map(|(name, value)| value.map(|value| (name, value))) {
        let mut entry = Rope::new();
        entry.string(1, name);
        entry.string(2, value);
        variables.message(2, &entry);
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compile::fixtures::wasm;
    use crate::compile::fixtures::{plugin, revision, run};
    use crate::model::{Digest, EnvVar, Module, Plugin, PluginRevision, ReloadBackoff};
    use crate::protobuf::to_json;

    fn full() -> Plugin {
        let mut plugin = plugin("shop/auth");
        plugin.fail_strategy = FailStrategy::FailOpen;
        wasm(&mut plugin).root_id = "root".into();
        wasm(&mut plugin).config = json!({"b": [1, "x"], "a": {"z": null}}).as_object().cloned();
        let inline = |name: &str, value: &str| EnvVar { name: name.into(), source: EnvVarSource::Inline(value.into()) };
        let host = |name: &str| EnvVar { name: name.into(), source: EnvVarSource::Host };
        wasm(&mut plugin).env = vec![inline("B", "2"), host("H"), inline("A", ""), host("G")];
        plugin
    }

    fn content(revision: &PluginRevision) -> Content {
        filter(revision, revision.plugin.wasm().unwrap(), None)
    }

    fn id_of(revision: &PluginRevision) -> String {
        vm_id(revision, revision.plugin.wasm().unwrap())
    }

    fn shown(revision: &PluginRevision) -> Value {
        let body = content(revision).into_resource("x").body.to_bytes();
        to_json("envoy.config.core.v3.TypedExtensionConfig", &body)["typed_config"]["config"].clone()
    }

    #[test]
    fn the_root_id_of_an_image_is_for_plugins_that_name_none() {
        let of_image = |named: &str, root_id: Option<&str>| {
            let mut plugin = plugin("shop/auth");
            wasm(&mut plugin).root_id = named.into();
            let bytes = bytes::Bytes::from_static(b"module");
            let (digest, root_id) = (Digest::of(&bytes), root_id.map(str::to_owned));
            let module = Module { digest, bytes, refusals: Vec::new(), root_id };
            PluginRevision::new(Arc::new(plugin), Code::Module(Arc::new(module)))
        };
        let of = |revision: &PluginRevision| shown(revision)["root_id"].as_str().unwrap_or_default().to_owned();
        for (named, by_image, expected) in
            [("", Some("a"), "a"), ("b", Some("a"), "b"), ("", None, ""), ("b", None, "b")]
        {
            assert_eq!(of(&of_image(named, by_image)), expected, "{named:?} {by_image:?}");
        }
        // Another root id is another plugin to Envoy, wherever it stands.
        let (plain, given, named) = (of_image("", None), of_image("", Some("a")), of_image("a", None));
        assert_ne!(plain.revision, given.revision);
        assert_eq!((given.revision, id_of(&given)), (named.revision, id_of(&plain)));
    }

    #[test]
    fn everything_that_the_operator_wrote_reaches_envoy() {
        let revision = Arc::new(PluginRevision::new(Arc::new(full()), Code::OnProxy("/etc/auth.wasm".into())));
        let vm_id = id_of(&revision);
        assert_eq!(
            shown(&revision),
            json!({
                "name": "shop/auth",
                "root_id": "root",
                "vm_config": {
                    "vm_id": vm_id,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": "/etc/auth.wasm"}},
                    "environment_variables": {"host_env_keys": ["G", "H"], "key_values": {"A": "", "B": "2"}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": r#"{"a":{"z":null},"b":[1,"x"]}"#,
                },
                "failure_policy": "FAIL_OPEN",
            })
        );
    }

    #[test]
    fn what_istio_has_no_field_for_reaches_envoy() {
        let mut plugin = plugin("shop/auth");
        wasm(&mut plugin).options = WasmOptions {
            allow_on_headers_stop_iteration: Some(true),
            allowed_capabilities: Some(["proxy_log".to_owned()].into()),
            reload_backoff: Some(ReloadBackoff { base: Duration::from_millis(1500), max: None }),
        };
        let shown = shown(&run(plugin, "one"));
        assert_eq!(shown["allow_on_headers_stop_iteration"], json!(true));
        assert_eq!(shown["capability_restriction_config"], json!({"allowed_capabilities": {"proxy_log": {}}}));
        assert_eq!(shown["reload_config"], json!({"backoff": {"base_interval": "1.500s"}}));
    }

    #[test]
    fn the_bytes_of_a_module_are_shared_and_no_configuration_is_no_field() {
        let revision = revision("shop/a", "module");
        let Code::Module(module) = &revision.code else { panic!() };
        let resource = content(&revision).into_resource("x");
        assert!(resource.body.segments().iter().any(|segment| segment.as_ptr() == module.bytes.as_ptr()));
        assert_eq!(shown(&revision).get("configuration"), None);
        assert_eq!(shown(&revision)["failure_policy"], "FAIL_CLOSED");
    }

    #[test]
    fn a_vm_is_kept_through_an_edit_of_the_configuration_and_of_nothing_else() {
        let base = id_of(&run(full(), "one"));
        let mut configured = full();
        wasm(&mut configured).config = None;
        let mut with_env = full();
        wasm(&mut with_env).env.pop();
        assert!(base.starts_with("shop/auth@"), "{base}");
        let mut stopping = full();
        wasm(&mut stopping).options.allow_on_headers_stop_iteration = Some(true);
        assert_eq!(id_of(&run(configured, "one")), base);
        assert_ne!(id_of(&run(with_env, "one")), base);
        assert_ne!(id_of(&run(stopping, "one")), base);
        assert_ne!(id_of(&run(full(), "two")), base);
    }
}
