//! The reconciler as a whole: changes in, snapshots and states out; no socket, and the clock stands still.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, advance};

use super::fleet::Arrival;
use super::memory::Memory;
use super::pushes::Pushes;
use super::reconcile::Reconciler;
use super::refusals::Refusals;
use crate::model::{
    Capabilities, Code, Digest, Direction, EnvoyVersion, FailStrategy, ListenerProtocol, ListenerSpec, Module,
    ModuleLocation, ModuleRef, ModuleState, Plugin, PluginId, PluginKind, PluginType, Position, Program, Proxy,
    ProxyTemplate, PullPolicy, Selector, TemplateId, WasmOptions, WasmProgram, WithoutConfig, WorkloadTarget,
};
use crate::modules::{Failure, NextTry, Notes};
use crate::protobuf::admin::{self, State};
use crate::snapshot::{Extension, Resource, ResourceType, Snapshot};
use crate::sources::Loaded;
use crate::xds::{Delivery, Hello, Outcome, Protocol, Report, Service, StreamId};

struct World {
    reconciler: Reconciler,
    loaded: Loaded,
    modules: BTreeMap<ModuleRef, ModuleState>,
    streams: u64,
    folder: tempfile::TempDir,
}

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

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

    fn connect(&mut self, node_id: &str, labels: &[(&str, &str)], is_new_process: bool) -> (StreamId, Snapshots) {
        self.streams += 1;
        let (snapshots, served) = watch::channel(None);
        let proxy = Proxy {
            node_id: node_id.into(),
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
        let snapshot = served.borrow().clone().unwrap();
        for resource in snapshot.listeners.values().chain(snapshot.clusters.values()) {
            self.answer(stream, resource.clone(), Outcome::Accepted);
        }
        self.answer(stream, chain(served), Outcome::Accepted);
    }

    fn state(&self, proxy: &str, plugin: &str) -> (State, String) {
        let proxy = self.reconciler.list_proxies().into_iter().find(|it| it.id == proxy).unwrap();
        let plugin = proxy.plugins.into_iter().find(|it| it.id == plugin).unwrap();
        (plugin.state(), plugin.message)
    }

    fn listed(&self, plugin: &str) -> admin::Plugin {
        self.reconciler.list_plugins().into_iter().find(|it| it.id == plugin).unwrap()
    }
}

fn reconciler(data_dir: &Path) -> Reconciler {
    let (memory, _) = Memory::open(data_dir);
    Reconciler::new("root".into(), Refusals::open(data_dir), memory, Pushes::default())
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
    let module = Module { digest: Digest::of(&bytes), bytes: bytes.into(), refusals: Vec::new() };
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
    let snapshot = served.borrow().clone().unwrap();
    match snapshot.extensions.resolve("wasmplane/in/PreAuthN-BeforeRouter") {
        Some(Extension::Known(resource)) => resource,
        other => panic!("no chain: {other:?}"),
    }
}

fn owners(served: &Snapshots) -> Vec<String> {
    chain(served).parts.iter().map(|part| part.owner.to_string()).collect()
}

fn refused(plugin: &str) -> Outcome {
    Outcome::Refused { message: format!("Unable to create Wasm plugin {plugin}") }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_answered_before_the_modules_had_their_time() {
    let mut world = World::new();
    world.plugin("slow", |_| {}).settle();
    let (_, served) = world.connect("e1", &[], false);
    assert!(!world.reconciler.is_open() && served.borrow().is_none());

    advance(Duration::from_secs(10)).await;
    world.reconciler.flush();
    assert!(world.reconciler.is_open());
    assert_eq!(owners(&served), Vec::<String>::new(), "a running proxy does not get what never was ready");
}

#[tokio::test(start_paused = true)]
async fn an_envoy_that_starts_waits_for_a_new_plugin_and_then_gets_its_stand_in() {
    let mut world = World::new();
    world.settle();
    world.plugin("slow", |_| {}).settle();
    let (_, starting) = world.connect("e1", &[], true);
    let (_, running) = world.connect("e2", &[], false);
    assert!(starting.borrow().is_none());
    assert_eq!(world.state("e2", "shop/slow").0, State::Pending);
    assert!(running.borrow().is_some());

    advance(Duration::from_secs(10)).await;
    world.reconciler.flush();
    assert!(starting.borrow().is_some());
    assert_eq!(world.state("e1", "shop/slow").0, State::StandIn);
    assert_ne!(chain(&starting).version, chain(&running).version);

    world.module("slow", Some("late")).settle();
    assert_eq!(chain(&starting).version, chain(&running).version);
    assert_eq!(owners(&running), ["shop/slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_only_the_proxies_that_it_touches() {
    let mut world = World::new();
    world.settle();
    let (_, mut web) = world.connect("web", &[("app", "web")], false);
    let (_, mut api) = world.connect("api", &[("app", "api")], false);
    web.mark_unchanged();
    api.mark_unchanged();
    let only_web = Selector(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    world.plugin("auth", |plugin| plugin.target = WorkloadTarget::Labels(only_web)).module("auth", Some("1")).settle();
    assert!(web.has_changed().unwrap());
    assert!(!api.has_changed().unwrap());

    // Equal content again wakes nobody.
    web.mark_unchanged();
    world.settle();
    assert!(!web.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn proxies_of_one_kind_share_one_snapshot() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (_, one) = world.connect("one", &[("pod", "1")], false);
    let (_, two) = world.connect("two", &[("pod", "2")], false);
    assert!(Arc::ptr_eq(one.borrow().as_ref().unwrap(), two.borrow().as_ref().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_plugin_is_programmed_when_all_that_carries_it_is_acknowledged() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    assert_eq!(world.state("e1", "shop/auth").0, State::Pending);
    world.answer(stream, chain(&served), Outcome::Accepted);
    assert_eq!(world.state("e1", "shop/auth").0, State::Pending, "its listener is not acknowledged");
    world.accept_all(stream, &served);
    assert_eq!(world.state("e1", "shop/auth"), (State::Programmed, String::new()));
    assert_eq!(world.listed("shop/auth").counts.unwrap().programmed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_revision_gives_way_to_the_one_that_this_proxy_took_before() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (one, served_one) = world.connect("one", &[], false);
    let (two, served_two) = world.connect("two", &[], false);
    world.accept_all(one, &served_one);
    world.accept_all(two, &served_two);
    let first = chain(&served_one).version.clone();

    world.module("auth", Some("2")).settle();
    world.accept_all(one, &served_one);
    world.answer(two, chain(&served_two), refused("shop/auth"));

    assert_eq!(chain(&served_two).version, first, "the other proxy's success must not take this one's good revision");
    assert_ne!(chain(&served_one).version, first);
    assert_eq!(world.state("two", "shop/auth"), (State::Rejected, "Unable to create Wasm plugin shop/auth".into()));
    assert_eq!(world.listed("shop/auth").messages, ["Unable to create Wasm plugin shop/auth"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_a_process_and_forgotten_for_the_next() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).plugin("log", |_| {}).module("auth", Some("1")).module("log", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], true);
    world.answer(stream, chain(&served), refused("shop/auth"));
    assert_eq!(owners(&served), ["shop/log"], "its neighbour goes on");
    world.reconciler.on_report(Report::Gone(stream));

    world.reconciler = reconciler(world.folder.path());
    world.settle();
    let (stream, served) = world.connect("e1", &[], false);
    assert_eq!(owners(&served), ["shop/log"]);
    assert_eq!(world.state("e1", "shop/auth").0, State::Rejected);
    world.reconciler.on_report(Report::Gone(stream));

    let (_, served) = world.connect("e1", &[], true);
    assert_eq!(owners(&served), ["shop/auth", "shop/log"]);
}

#[tokio::test(start_paused = true)]
async fn a_module_that_fails_leaves_the_revision_before_running() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);

    let other = module_ref("other");
    world.plugin("auth", |plugin| wasm(plugin).module = other).module("other", None).settle();

    assert_eq!(owners(&served), ["shop/auth"]);
    let listed = world.listed("shop/auth");
    assert_eq!(listed.module_error, "GET other: 404 Not Found");
    assert_eq!((listed.desired_revision.as_str(), listed.counts.unwrap().programmed), ("", 1));
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_not_to_be_had_shows_since_when_and_when_it_is_tried_again() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", None).settle();
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
    let failing = Failure { reason: "404".into(), since: at(10), attempts: 3, next: NextTry::At(at(20)) };
    let shown = |world: &mut World, failing: &Failure| {
        let notes = Notes { failing: Some(failing.clone()), warnings: Arc::default(), image: None };
        let notes = Arc::new(BTreeMap::from([(module_ref("auth"), notes)]));
        world.reconciler.on_modules(Arc::new(world.modules.clone()), notes);
        world.listed("shop/auth")
    };
    let expected = admin::ModuleFailure {
        reason: "404".into(),
        since: "1970-01-01T00:00:10Z".into(),
        attempts: 3,
        next_try: "1970-01-01T00:00:20Z".into(),
        tried_again: String::new(),
    };
    assert_eq!(shown(&mut world, &failing).module_failure, Some(expected));
    let waits = Failure { next: NextTry::WhenFileChanges, ..failing };
    let listed = shown(&mut world, &waits);
    assert_eq!(listed.module_failure.unwrap().tried_again, "when the file changes");
    assert!(!listed.warnings.iter().any(|warning| warning.contains("not to be had")), "{:?}", listed.warnings);

    world.module("auth", Some("1"));
    let warnings = shown(&mut world, &waits).warnings;
    assert!(warnings.contains(&"a newer module is not to be had: 404".to_owned()), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn live_proxies_that_share_a_node_id_are_told_apart() {
    let mut world = World::new();
    world.settle();
    let (first, _one) = world.connect("envoy", &[], true);
    let _two = world.connect("envoy", &[], true);
    let ids = |world: &World| world.reconciler.list_proxies().into_iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(&world), ["envoy", "envoy#2"]);
    world.reconciler.on_report(Report::Gone(first));
    assert_eq!(ids(&world), ["envoy#2"]);
}

#[tokio::test(start_paused = true)]
async fn the_separate_services_of_one_envoy_are_one_proxy() {
    let mut world = World::new();
    world.settle();
    let services = [ResourceType::Cluster, ResourceType::Listener];
    let mut served = Vec::new();
    for (number, service) in services.into_iter().enumerate() {
        let (stream, snapshots) = (StreamId(100 + number as u64), watch::channel(None));
        let mut hello = hello("e1");
        hello.service = Service::Single(service);
        world.reconciler.on_arrival(Arrival { stream, hello, snapshots: snapshots.0 });
        world.reconciler.flush();
        served.push(snapshots.1);
    }
    let proxies = world.reconciler.list_proxies();
    assert_eq!(proxies.len(), 1);
    assert_eq!(proxies[0].streams, ["CDS delta", "LDS delta"]);
    assert!(served.iter().all(|snapshots| snapshots.borrow().is_some()));
}

fn hello(node_id: &str) -> Hello {
    let proxy = Proxy {
        node_id: node_id.into(),
        cluster: String::new(),
        namespace: "shop".into(),
        labels: BTreeMap::new(),
        version: None,
        capabilities: Capabilities::default(),
    };
    Hello { proxy, service: Service::Ads, protocol: Protocol::Delta, is_new_process: true, peer: None }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_fits_no_listener_says_so() {
    let mut world = World::new();
    world
        .plugin("auth", |plugin| {
            plugin.matches = vec![crate::model::TrafficMatch { ports: vec![9], ..Default::default() }];
            wasm(plugin).module.location = ModuleLocation::File(PathBuf::from("/on/proxy.wasm"));
        })
        .settle();
    world.modules.insert(
        ModuleRef { location: ModuleLocation::File(PathBuf::from("/on/proxy.wasm")), ..module_ref("auth") },
        ModuleState::Ready(Code::OnProxy("/on/proxy.wasm".into())),
    );
    world.settle();
    let _served = world.connect("e1", &[], false);
    let warnings = world.listed("shop/auth").warnings;
    assert!(warnings.iter().any(|warning| warning.contains("match fits no listener of 1 proxies")), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_plugin_leaves_its_chain_and_says_why() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);
    let listener = served.borrow().as_ref().unwrap().listeners["in"].version.clone();

    world.plugin("auth", |plugin| plugin.is_disabled = true).settle();

    assert_eq!(owners(&served), Vec::<String>::new());
    assert_eq!(served.borrow().as_ref().unwrap().listeners["in"].version, listener);
    assert_eq!(world.state("e1", "shop/auth"), (State::StandIn, "disabled by wasmplane.io/disabled".into()));
    let listed = world.listed("shop/auth");
    assert_eq!(listed.conditions.iter().find(|it| it.r#type == "Programmed").unwrap().reason, "Disabled");
}

#[tokio::test(start_paused = true)]
async fn a_connected_proxy_is_explained_with_what_became_of_its_plugins() {
    let mut world = World::new();
    let only_api = Selector(BTreeMap::from([("app".to_owned(), "api".to_owned())]));
    world
        .plugin("auth", |_| {})
        .plugin("log", |plugin| plugin.position = Position::BeforeRouter)
        .plugin("other", |plugin| plugin.target = WorkloadTarget::Labels(only_api))
        .module("auth", Some("1"))
        .module("log", Some("1"))
        .module("other", Some("1"))
        .settle();
    let (stream, served) = world.connect("e1", &[("app", "web")], true);
    world.answer(stream, chain(&served), refused("shop/auth"));
    world.accept_all(stream, &served);

    let explanation = world.reconciler.explain_proxy("e1").unwrap();
    let states: Vec<_> = explanation.plugins.iter().map(|it| (it.id.as_str(), it.state())).collect();
    assert_eq!(states, [("shop/auth", State::Rejected), ("shop/log", State::Programmed)]);
    assert_eq!(explanation.plugins[0].message, "Unable to create Wasm plugin shop/auth");
    assert_eq!(explanation.plugins[1].order, "position BeforeRouter comes after PreAuthN");
    assert_eq!(explanation.plugins[1].revision.len(), 16);
    assert_eq!((explanation.mode(), explanation.id.as_str()), (admin::Mode::Chain, "e1"));
    assert_eq!(explanation.skipped[0].reason, "selector does not match: app=api");
    assert!(world.reconciler.explain_proxy("e2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_with_listeners_of_its_own_is_not_pending_for_those_of_a_template() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    let snapshot = served.borrow().clone().unwrap();
    let Some(Extension::Known(alone)) = snapshot.extensions.resolve("extensions.istio.io/wasmplugin/shop.auth") else {
        panic!("the plugin applies");
    };
    world.answer(stream, alone, Outcome::Accepted);
    assert_eq!(world.state("e1", "shop/auth").0, State::Programmed);
}

#[tokio::test(start_paused = true)]
async fn listeners_outside_ads_are_not_refused_for_what_another_stream_of_the_envoy_was_served() {
    let mut world = World::new();
    world.settle();
    let mut served = Vec::new();
    for (number, service) in [ResourceType::Cluster, ResourceType::Listener].into_iter().enumerate() {
        let (stream, snapshots) = (StreamId(100 + number as u64), watch::channel(None));
        let mut hello = hello("e1");
        hello.service = Service::Single(service);
        // The stream of listeners asks for no chains, as `xds::stream` does for it.
        hello.proxy.capabilities.chain = service == ResourceType::Cluster;
        world.reconciler.on_arrival(Arrival { stream, hello, snapshots: snapshots.0 });
        if service == ResourceType::Listener {
            assert!(snapshots.1.borrow().is_none(), "served before it is decided what it may have");
        }
        world.reconciler.flush();
        served.push(snapshots.1);
    }
    let snapshot = served[1].borrow().clone().unwrap();
    let mut references = snapshot.listeners.values().flat_map(|listener| &listener.references);
    assert!(references.all(|(used_type, _)| *used_type != ResourceType::ExtensionConfig));
}
