//! Small values for the tests of this room.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Kind, Member, Run};
use crate::model::{
    Capabilities, Code, Digest, Direction, FailStrategy, ForwardTo, Host, ListenerProtocol, ListenerSpec, Module,
    ModuleLocation, ModuleRef, ModuleState, Plugin, PluginEntry, PluginId, PluginKind, PluginRevision, PluginType,
    Position, Program, Proxy, ProxyTemplate, PullPolicy, TemplateId, WasmOptions, WasmProgram, WithoutConfig,
    WorkloadTarget,
};

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A plugin of that `namespace/name` with every default.
pub fn plugin(id: &str) -> Plugin {
    let (namespace, name) = id.split_once('/').unwrap();
    Plugin {
        id: PluginId::new(PluginKind::WasmPlugin, namespace, name),
        created: None,
        target: WorkloadTarget::Everything,
        matches: Vec::new(),
        position: Position::BeforeRouter,
        priority: 0,
        plugin_type: PluginType::Http,
        fail_strategy: FailStrategy::FailClose,
        program: Program::Wasm(WasmProgram {
            module: ModuleRef {
                location: ModuleLocation::Http(format!("https://modules.test/{name}.wasm")),
                sha256: None,
                pull_policy: PullPolicy::Unspecified,
                pull_secret: None,
            },
            config: None,
            root_id: String::new(),
            env: Vec::new(),
            options: WasmOptions::default(),
        }),
        is_disabled: false,
    }
}

/// The module and its settings of a plugin made here.
pub fn wasm(plugin: &mut Plugin) -> &mut WasmProgram {
    match &mut plugin.program {
        Program::Wasm(program) => program,
        Program::Lua(_) => panic!("the plugins of these tests are modules"),
    }
}

/// That plugin with a module of that content, padded to a size that a rope shares.
pub fn run(plugin: Plugin, module: &str) -> Arc<PluginRevision> {
    let bytes = Bytes::from(format!("{module:=<2000}"));
    let module = Module { digest: Digest::of(&bytes), bytes, refusals: Vec::new(), root_id: None };
    Arc::new(PluginRevision::new(Arc::new(plugin), Code::Module(Arc::new(module))))
}

pub fn revision(id: &str, module: &str) -> Arc<PluginRevision> {
    run(plugin(id), module)
}

pub fn entry(running: Arc<PluginRevision>) -> PluginEntry {
    PluginEntry {
        desired: running.plugin.clone(),
        module: ModuleState::Ready(running.code.clone()),
        running: Some(running),
        good: Vec::new(),
    }
}

pub fn proxy(namespace: &str) -> Proxy {
    Proxy::named("test", namespace)
}

/// A template without listeners.
pub fn template(id: &str) -> ProxyTemplate {
    let (namespace, name) = id.split_once('/').unwrap();
    ProxyTemplate {
        id: TemplateId { namespace: namespace.into(), name: name.into() },
        created: None,
        selector: None,
        without_config: WithoutConfig::Deny,
        listeners: Vec::new(),
        native: Vec::new(),
    }
}

/// An inbound listener that forwards to an address.
pub fn listener(name: &str, port: u16, protocol: ListenerProtocol) -> ListenerSpec {
    ListenerSpec {
        name: name.into(),
        direction: Direction::Inbound,
        port,
        bind: [0, 0, 0, 0].into(),
        protocol,
        forward_to: Some(ForwardTo { host: Host::Address([127, 0, 0, 1].into()), port: 9090 }),
    }
}

/// A kind of proxy in namespace `shop`, in chain mode.
pub fn kind(templates: Vec<ProxyTemplate>, plugins: Vec<Arc<PluginRevision>>) -> Kind {
    let members =
        plugins.into_iter().map(|it| Member { plugin: it.plugin.clone(), run: Run::Revision(it), accepted: None });
    Kind {
        namespace: "shop".into(),
        root_namespace: "root".into(),
        capabilities: Capabilities { chain: true, wasm: true },
        by_digest: None,
        templates: templates.into_iter().map(Arc::new).collect(),
        plugins: members.collect(),
    }
}
