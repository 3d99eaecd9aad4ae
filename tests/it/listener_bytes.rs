//! The exact bytes of what wasmplane generates. A change here drains the listeners of whole fleets on an upgrade: it is
//! a CHANGELOG entry that says "drains", never a side effect. `INSTA_UPDATE=always` rewrites the golden files.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use wasmplane::compile::{Kind, Member, Run, compile};
use wasmplane::model::{
    Capabilities, Code, Digest, Direction, EnvVar, EnvVarSource, FailStrategy, ForwardTo, Host, ListenerProtocol,
    ListenerSpec, Module, ModuleLocation, ModuleRef, Plugin, PluginId, PluginKind, PluginRevision, PluginType,
    Position, Program, ProxyTemplate, PullPolicy, TemplateId, WasmOptions, WasmProgram, WithoutConfig, WorkloadTarget,
};
use wasmplane::protobuf::to_json;
use wasmplane::snapshot::{Extension, Resource};

fn listener(name: &str, port: u16, direction: Direction, protocol: ListenerProtocol, to: Option<Host>) -> ListenerSpec {
    let forward_to = to.map(|host| ForwardTo { host, port: 9090 });
    ListenerSpec { name: name.into(), direction, port, bind: [0, 0, 0, 0].into(), protocol, forward_to }
}

fn template() -> ProxyTemplate {
    let address = || Some(Host::Address([127, 0, 0, 1].into()));
    ProxyTemplate {
        id: TemplateId { namespace: "shop".into(), name: "web".into() },
        created: None,
        selector: None,
        without_config: WithoutConfig::Deny,
        listeners: vec![
            listener("in-8080", 8080, Direction::Inbound, ListenerProtocol::Http, address()),
            listener("out-8081", 8081, Direction::Outbound, ListenerProtocol::Http, Some(Host::Name("up.test".into()))),
            listener("gw-8082", 8082, Direction::Gateway, ListenerProtocol::Http, None),
            listener("tcp-8083", 8083, Direction::Inbound, ListenerProtocol::Tcp, address()),
            listener("closed-8084", 8084, Direction::Inbound, ListenerProtocol::Tcp, None),
        ],
        native: Vec::new(),
    }
}

fn plugin(name: &str, plugin_type: PluginType) -> Arc<PluginRevision> {
    let bytes = Bytes::from_static(b"\0asm");
    let module = ModuleRef {
        location: ModuleLocation::Http("http://modules.test/a.wasm".into()),
        sha256: None,
        pull_policy: PullPolicy::Unspecified,
        pull_secret: None,
    };
    let plugin = Plugin {
        id: PluginId::new(PluginKind::WasmPlugin, "shop", name),
        created: None,
        target: WorkloadTarget::Everything,
        matches: Vec::new(),
        position: Position::BeforeRouter,
        priority: 0,
        plugin_type,
        fail_strategy: FailStrategy::FailClose,
        program: Program::Wasm(WasmProgram {
            module,
            config: json!({"header": "x", "numbers": [1, 2.5]}).as_object().cloned(),
            root_id: "root".into(),
            env: vec![EnvVar { name: "A".into(), source: EnvVarSource::Inline("1".into()) }],
            options: WasmOptions::default(),
        }),
        is_disabled: false,
    };
    let module = Module { digest: Digest::of(&bytes), bytes, refusals: Vec::new(), root_id: None };
    Arc::new(PluginRevision::new(Arc::new(plugin), Code::Module(Arc::new(module))))
}

fn kind(chain: bool) -> Kind {
    let plugins = [plugin("auth", PluginType::Http), plugin("net", PluginType::Network)];
    let plugins = plugins.map(|it| Member { plugin: it.plugin.clone(), run: Run::Revision(it), accepted: None });
    Kind {
        namespace: "shop".into(),
        root_namespace: "istio-system".into(),
        capabilities: Capabilities { chain, wasm: true },
        by_digest: None,
        templates: vec![Arc::new(template())],
        plugins: plugins.into(),
    }
}

fn shown(resource: &Resource) -> Value {
    let bytes = resource.body.to_bytes();
    let message = resource.resource_type.type_url().trim_start_matches("type.googleapis.com/");
    json!({
        "version": resource.version.as_str(),
        "sha256": Digest::of(&bytes).to_string(),
        "message": to_json(message, &bytes),
    })
}

fn generated(chain: bool) -> Value {
    let snapshot = compile(&kind(chain)).snapshot;
    let resources = snapshot.listeners.values().chain(snapshot.clusters.values());
    resources.map(|resource| (resource.name.to_string(), shown(resource))).collect()
}

fn extensions() -> Value {
    let snapshot = compile(&kind(true)).snapshot;
    [
        "wasmplane/in-8080/PreAuthN-BeforeRouter",
        "extensions.istio.io/wasmplugin/shop.auth",
        "extensions.istio.io/wasmplugin/network/shop.net",
        "extensions.istio.io/wasmplugin/shop.gone",
    ]
    .into_iter()
    .map(|name| match snapshot.extensions.resolve(name) {
        Some(Extension::Known(resource) | Extension::PassThrough(resource)) => (name.to_owned(), shown(&resource)),
        None => panic!("{name} is not answered"),
    })
    .collect()
}

#[test]
fn generated_resources_stay_equal_byte_for_byte() {
    insta::with_settings!({snapshot_path => "../golden/bytes", prepend_module_to_snapshot => false}, {
        insta::assert_json_snapshot!("chain_mode", generated(true));
        insta::assert_json_snapshot!("filter_mode", generated(false));
        insta::assert_json_snapshot!("extensions", extensions());
    });
}
