//! The reconciler as a whole: changes in, snapshots and states out; no socket, and the clock stands still.

mod memory;
mod refusals;
mod restart;
mod serving;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::{Duration, advance};

use super::delivery::{Deliveries, DeliveryMode};
use super::fleet::Arrival;
use super::memory::Memory;
use super::pushes::Pushes;
use super::reconcile::Reconciler;
use super::refusals::Refusals;
use super::scribe::{Scribe, scribe};
use crate::model::{
    Capabilities, Code, Digest, Direction, EnvVar, EnvVarSource, EnvoyVersion, FailStrategy, GATEWAY_NAME,
    ListenerProtocol, ListenerSpec, LuaProgram, Module, ModuleLocation, ModuleRef, ModuleState, Plugin, PluginId,
    PluginKind, PluginType, Position, Program, Proxy, ProxyTemplate, PullPolicy, Selector, TargetReference, TemplateId,
    WasmOptions, WasmProgram, WithoutConfig, WorkloadTarget,
};
use crate::protobuf::admin::{self, State};
use crate::snapshot::{Extension, Resource, ResourceType, Snapshot};
use crate::sources::Loaded;
use crate::xds::{Delivery, Hello, Outcome, Protocol, Report, Service, SnapshotReceiver, StreamId, slot};

struct World {
    reconciler: Reconciler,
    loaded: Loaded,
    modules: BTreeMap<ModuleRef, ModuleState>,
    streams: u64,
    folder: tempfile::TempDir,
}

type Snapshots = SnapshotReceiver;

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reconciler = reconciler(folder.path());
        let mut world = Self { reconciler, loaded: Loaded::default(), modules: BTreeMap::new(), streams: 0, folder };
        let template = template();
        world.loaded.templates.insert(template.id.clone(), Arc::new(template));
        world
    }

    fn plugin(&mut self, name: &str, change: impl FnOnce(&mut Plugin)) -> &mut Self {
        let mut plugin = plugin(name);
        change(&mut plugin);
        self.loaded.plugins.insert(plugin.id.clone(), Arc::new(plugin));
        self
    }

    fn module(&mut self, name: &str, content: Option<&str>) -> &mut Self {
        let state = match content {
            Some(content) => ready(content),
            None => ModuleState::Failed { reason: format!("GET {name}: 404 Not Found") },
        };
        self.modules.insert(module_ref(name), state);
        self
    }

    fn settle(&mut self) {
        self.reconciler.on_loaded(Arc::new(self.loaded.clone()));
        self.reconciler.on_modules(Arc::new(self.modules.clone()), Arc::default());
        self.reconciler.flush();
    }

    /// The control plane is another process, with the same data folder.
    fn restart(&mut self) {
        self.reconciler = reconciler(self.folder.path());
    }

    /// After a restart, with these modules in the store.
    fn find_stored(&mut self, contents: &[&str]) {
        self.reconciler.on_loaded(Arc::new(self.loaded.clone()));
        for module in self.reconciler.table.wanted().into_iter().filter(|it| it.sha256.is_some()) {
            let is_it = |content: &&&str| Some(Digest::of(content.as_bytes())) == module.sha256;
            let content = contents.iter().find(is_it).unwrap();
            self.modules.insert(module, ready(content));
        }
        self.settle();
    }

    fn connect(&mut self, node_id: &str, labels: &[(&str, &str)], is_new_process: bool) -> (StreamId, Snapshots) {
        self.streams += 1;
        let (snapshots, served) = slot();
        let proxy = Proxy {
            node_id: node_id.into(),
            name: String::new(),
            cluster: String::new(),
            namespace: "shop".into(),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            version: Some(EnvoyVersion::new(1, 40, 0)),
            capabilities: Capabilities { chain: true, wasm: true },
        };
        let hello = Hello { proxy, service: Service::Ads, protocol: Protocol::Delta, is_new_process, peer: None };
        let stream = StreamId(self.streams);
        self.reconciler.on_arrival(Arrival { stream, hello, snapshots });
        self.reconciler.flush();
        (stream, served)
    }

    fn answer(&mut self, stream: StreamId, resource: Arc<Resource>, outcome: Outcome) {
        self.reconciler.on_report(Report::Delivered(stream, Delivery { resource, outcome }));
        self.reconciler.flush();
    }

    fn accept_all(&mut self, stream: StreamId, served: &Snapshots) {
        let snapshot = served.peek().unwrap();
        for resource in snapshot.listeners.values().chain(snapshot.clusters.values()) {
            self.answer(stream, resource.clone(), Outcome::Accepted);
        }
        self.answer(stream, chain(served), Outcome::Accepted);
    }

    /// An Envoy that holds `held` answers chains as `judge` says, until it holds what it is to run. Returns how many it was
    /// sent, the way back after a refusal aside.
    fn play(
        &mut self,
        stream: StreamId,
        served: &Snapshots,
        held: &mut Option<Arc<Resource>>,
        judge: impl Fn(&[String]) -> Option<&'static str>,
    ) -> usize {
        let mut refused = Vec::new();
        for sent in 0.. {
            let chain = chain(served);
            // A session never sends again what was refused.
            let is_settled = held.as_ref().is_some_and(|held| held.version == chain.version);
            if is_settled || refused.contains(&chain.version) {
                return sent;
            }
            match judge(&owners(served)) {
                Some(message) => {
                    refused.push(chain.version.clone());
                    let back = held.clone().or_else(|| chain.stand_in.clone());
                    self.answer(stream, chain, Outcome::Refused { message: message.into() });
                    back.into_iter().for_each(|back| self.answer(stream, back, Outcome::Accepted));
                }
                None => {
                    *held = Some(chain.clone());
                    self.answer(stream, chain, Outcome::Accepted);
                }
            }
            assert!(sent < 100, "no end to it");
        }
        unreachable!("counted to the end")
    }

    fn state(&self, proxy: &str, plugin: &str) -> (State, String) {
        let proxy = self.reconciler.list_proxies().into_iter().find(|it| it.id == proxy).unwrap();
        let plugin = proxy.plugins.into_iter().find(|it| it.id == plugin).unwrap();
        (plugin.state(), plugin.message)
    }

    fn listed(&self, plugin: &str) -> admin::Plugin {
        self.reconciler.list_plugins(&self.reconciler.summarize()).into_iter().find(|it| it.id == plugin).unwrap()
    }
}

fn reconciler(data_dir: &Path) -> Reconciler {
    reconciler_with(data_dir, &Scribe::at_once())
}

fn reconciler_with(data_dir: &Path, scribe: &Scribe) -> Reconciler {
    let (memory, _) = Memory::open(data_dir, scribe);
    Reconciler::new("root".into(), Refusals::open(data_dir, scribe), memory, Pushes::default(), Deliveries::default())
}

fn module_ref(name: &str) -> ModuleRef {
    ModuleRef {
        location: ModuleLocation::Http(format!("http://modules/{name}.wasm")),
        sha256: None,
        pull_policy: PullPolicy::Unspecified,
        pull_secret: None,
    }
}

fn ready(content: &str) -> ModuleState {
    let bytes = content.to_owned().into_bytes();
    let module = Module { digest: Digest::of(&bytes), bytes: bytes.into(), refusals: Vec::new(), root_id: None };
    ModuleState::Ready(Code::Module(Arc::new(module)))
}

fn plugin(name: &str) -> Plugin {
    Plugin {
        id: PluginId::new(PluginKind::WasmPlugin, "shop", name),
        created: None,
        target: WorkloadTarget::Everything,
        matches: Vec::new(),
        position: Position::PreAuthN,
        priority: 0,
        plugin_type: PluginType::Http,
        fail_strategy: FailStrategy::FailClose,
        program: Program::Wasm(WasmProgram {
            module: module_ref(name),
            config: None,
            root_id: String::new(),
            env: Vec::new(),
            options: WasmOptions::default(),
        }),
        is_disabled: false,
    }
}

fn wasm(plugin: &mut Plugin) -> &mut WasmProgram {
    match &mut plugin.program {
        Program::Wasm(program) => program,
        Program::Lua(_) => panic!("the plugins of these tests are modules"),
    }
}

fn template() -> ProxyTemplate {
    ProxyTemplate {
        id: TemplateId { namespace: "shop".into(), name: "web".into() },
        created: None,
        selector: None,
        without_config: WithoutConfig::Deny,
        listeners: vec![ListenerSpec {
            name: "in".into(),
            direction: Direction::Inbound,
            port: 8080,
            bind: [127, 0, 0, 1].into(),
            protocol: ListenerProtocol::Http,
            forward_to: None,
        }],
        native: Vec::new(),
    }
}

fn chain(served: &Snapshots) -> Arc<Resource> {
    let snapshot = served.peek().unwrap();
    match snapshot.extensions.resolve("wasmplane/in/PreAuthN-BeforeRouter") {
        Some(Extension::Known(resource)) => resource,
        other => panic!("no chain: {other:?}"),
    }
}

fn owners(served: &Snapshots) -> Vec<String> {
    chain(served).parts.iter().map(|part| part.owner.to_string()).collect()
}

fn refused(plugin: &str) -> Outcome {
    Outcome::Refused { message: format!("Unable to create Wasm plugin {plugin}").into() }
}

fn hello(node_id: &str) -> Hello {
    let proxy = Proxy::named(node_id, "shop");
    Hello { proxy, service: Service::Ads, protocol: Protocol::Delta, is_new_process: true, peer: None }
}
