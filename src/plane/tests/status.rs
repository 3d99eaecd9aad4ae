//! What is said of plugins and proxies.

use super::*;
use crate::modules::{Failure, NextTry, Notes};

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
    let listener = served.peek().unwrap().listeners["in"].version.clone();

    world.plugin("auth", |plugin| plugin.is_disabled = true).settle();

    assert_eq!(owners(&served), Vec::<String>::new());
    assert_eq!(served.peek().unwrap().listeners["in"].version, listener);
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

    let explanation = world.reconciler.question("e1").unwrap().answer();
    let states: Vec<_> = explanation.plugins.iter().map(|it| (it.id.as_str(), it.state())).collect();
    assert_eq!(states, [("shop/auth", State::Rejected), ("shop/log", State::Programmed)]);
    assert_eq!(explanation.plugins[0].message, "Unable to create Wasm plugin shop/auth");
    assert_eq!(explanation.plugins[1].order, "position BeforeRouter comes after PreAuthN");
    assert_eq!(explanation.plugins[1].revision.len(), 16);
    assert_eq!((explanation.mode(), explanation.id.as_str()), (admin::Mode::Chain, "e1"));
    assert_eq!(explanation.skipped[0].reason, "selector does not match: app=api");
    assert!(world.reconciler.question("e2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_with_listeners_of_its_own_is_not_pending_for_those_of_a_template() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    let snapshot = served.peek().unwrap();
    let Some(Extension::Known(alone)) = snapshot.extensions.resolve("extensions.istio.io/wasmplugin/shop.auth") else {
        panic!("the plugin applies");
    };
    world.answer(stream, alone, Outcome::Accepted);
    assert_eq!(world.state("e1", "shop/auth").0, State::Programmed);
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_not_to_be_had_shows_since_when_and_when_it_is_tried_again() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", None).settle();
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
    let failing = Failure { reason: "404".into(), since: at(10), attempts: 3, next: NextTry::At(at(20)) };
    let shown = |world: &mut World, failing: &Failure| {
        let notes = Notes { failing: Some(failing.clone()), ..Notes::default() };
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

#[tokio::test]
async fn a_tag_that_is_only_reported_is_told_with_what_runs_and_what_it_means() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let [runs, means] = [b"runs".as_slice(), b"means"].map(Digest::of);
    let notes = Notes { image: Some(runs), tag_means: Some(means), ..Notes::default() };
    let notes = Arc::new(BTreeMap::from([(module_ref("auth"), notes)]));
    world.reconciler.on_modules(Arc::new(world.modules.clone()), notes);
    let location = module_ref("auth").location;
    let expected =
        format!("{location} now means sha256:{means}; what runs is of sha256:{runs} (--tag-refresh only reports)");
    assert!(world.listed("shop/auth").warnings.contains(&expected), "{:?}", world.listed("shop/auth").warnings);
}

#[tokio::test(start_paused = true)]
async fn while_a_new_image_fails_the_image_of_what_runs_is_shown() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let image = Digest::of(b"image");
    let notes = Notes { image: Some(image), ..Notes::default() };
    world.reconciler.on_notes(Arc::new(BTreeMap::from([(module_ref("auth"), notes)])));
    assert_eq!(world.listed("shop/auth").image_digest, image.to_string());

    let other = module_ref("other");
    world.plugin("auth", |plugin| wasm(plugin).module = other).module("other", None).settle();
    let listed = world.listed("shop/auth");
    assert_eq!((listed.module_digest, listed.image_digest), (Digest::of(b"1").to_string(), image.to_string()));

    // A module of no image is not said to be of that one.
    world.module("other", Some("2")).settle();
    assert_eq!(world.listed("shop/auth").image_digest, "");
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_changes_no_bytes_is_not_waited_for() {
    let variables = |names: [&'static str; 2]| {
        let variable = |name: &str| EnvVar { name: name.into(), source: EnvVarSource::Inline("1".into()) };
        move |plugin: &mut Plugin| wasm(plugin).env = names.map(variable).into()
    };
    let mut world = World::new();
    world.plugin("auth", variables(["A", "B"])).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("envoy", &[], false);
    world.accept_all(stream, &served);
    let before = chain(&served);

    // Another revision; Envoy has no order of variables.
    world.plugin("auth", variables(["B", "A"])).settle();
    let after = chain(&served);
    assert_eq!(after.version, before.version);
    assert_ne!(after.parts, before.parts);
    let key = world.reconciler.proxies.of_stream(stream).unwrap();
    assert!(world.reconciler.proxies.get(key).unwrap().progress.is_settled());
}
