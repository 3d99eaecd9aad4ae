//! Which proxies are served what, and when.

use super::*;

#[tokio::test(start_paused = true)]
async fn nobody_is_answered_before_the_modules_had_their_time() {
    let mut world = World::new();
    world.plugin("slow", |_| {}).settle();
    let (_, served) = world.connect("e1", &[], false);
    assert!(!world.reconciler.is_open() && served.peek().is_none());

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
    assert!(starting.peek().is_none());
    assert_eq!(world.state("e2", "shop/slow").0, State::Pending);
    assert!(running.peek().is_some());

    advance(Duration::from_secs(10)).await;
    world.reconciler.flush();
    assert!(starting.peek().is_some());
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
    let (_, web) = world.connect("web", &[("app", "web")], false);
    let (_, api) = world.connect("api", &[("app", "api")], false);
    web.take();
    api.take();
    let only_web = Selector(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    world.plugin("auth", |plugin| plugin.target = WorkloadTarget::Labels(only_web)).module("auth", Some("1")).settle();
    assert!(web.peek().is_some());
    assert!(api.peek().is_none());

    // Equal content again wakes nobody.
    web.take();
    world.settle();
    assert!(web.peek().is_none());
}

#[tokio::test(start_paused = true)]
async fn proxies_of_one_kind_share_one_snapshot() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (_, one) = world.connect("one", &[("pod", "1")], false);
    let (_, two) = world.connect("two", &[("pod", "2")], false);
    assert!(Arc::ptr_eq(&one.peek().unwrap(), &two.peek().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn labels_that_no_selector_asks_for_do_not_tell_proxies_apart_until_one_does() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (_, one) = world.connect("one", &[("pod", "1")], false);
    let (_, two) = world.connect("two", &[("pod", "2")], false);
    let groups = |world: &mut World| {
        let keys: Vec<_> = world.reconciler.proxies.iter().map(|(key, _)| key).collect();
        let groups = keys.iter().map(|key| Arc::as_ptr(world.reconciler.proxies.group(*key).unwrap().0));
        groups.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(groups(&mut world), 1);

    let only_two = || WorkloadTarget::Labels(Selector(BTreeMap::from([("pod".to_owned(), "2".to_owned())])));
    world.plugin("log", |plugin| plugin.target = only_two()).module("log", Some("1")).settle();
    assert_eq!((owners(&one), owners(&two)), (vec!["shop/auth".into()], vec!["shop/auth".into(), "shop/log".into()]));
    assert_eq!(groups(&mut world), 2);

    world.plugin("log", |_| {}).settle();
    assert_eq!((groups(&mut world), owners(&one).len()), (1, 2));
    let mut template = template();
    template.selector = Some(Selector(BTreeMap::from([("pod".to_owned(), "1".to_owned())])));
    world.loaded.templates.insert(template.id.clone(), Arc::new(template));
    world.settle();
    let has_listener = |served: &Snapshots| served.peek().unwrap().listeners.contains_key("in");
    assert_eq!((groups(&mut world), has_listener(&one), has_listener(&two)), (2, true, false));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_told_from_others_by_its_name_once_a_plugin_refers_to_one() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (_, one) = world.connect("one", &[(GATEWAY_NAME, "one")], false);
    let (_, two) = world.connect("two", &[(GATEWAY_NAME, "two")], false);
    let reference =
        TargetReference { group: "gateway.networking.k8s.io".into(), kind: "Gateway".into(), name: "two".into() };
    world.plugin("auth", |plugin| plugin.target = WorkloadTarget::References(vec![reference])).settle();
    assert_eq!((owners(&one).len(), owners(&two).len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_into_a_known_group_is_not_selected_for_until_something_changes() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let is_known = |world: &mut World| {
        let key = world.reconciler.proxies.iter().next().unwrap().0;
        let group = world.reconciler.proxies.group(key).unwrap().0.clone();
        world.reconciler.proxies.selected(&group).is_some()
    };
    let (first, one) = world.connect("one", &[], false);
    assert!(is_known(&mut world));
    let (_, two) = world.connect("two", &[], true);
    assert!(Arc::ptr_eq(&one.peek().unwrap(), &two.peek().unwrap()));

    // What a proxy accepts is what others may go back to.
    world.accept_all(first, &one);
    assert!(!is_known(&mut world));
    let (_, three) = world.connect("three", &[], false);
    assert!(is_known(&mut world));
    let before = chain(&three).version.clone();
    world.module("auth", Some("2")).settle();
    let (_, four) = world.connect("four", &[], false);
    assert_ne!(chain(&four).version, before);
    assert!(Arc::ptr_eq(&three.peek().unwrap(), &four.peek().unwrap()));
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
        let (stream, snapshots) = (StreamId(100 + number as u64), slot());
        let mut hello = hello("e1");
        hello.service = Service::Single(service);
        world.reconciler.on_arrival(Arrival { stream, hello, snapshots: snapshots.0 });
        world.reconciler.flush();
        served.push(snapshots.1);
    }
    let proxies = world.reconciler.list_proxies();
    assert_eq!(proxies.len(), 1);
    assert_eq!(proxies[0].streams, ["CDS delta", "LDS delta"]);
    assert!(served.iter().all(|snapshots| snapshots.peek().is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_separate_ecds_stream_does_not_take_delivery_by_digest_from_the_ads_stream() {
    use ResourceType::{ExtensionConfig, Listener};
    let delivery_of = |services: &[Service]| {
        let mut world = World::new();
        let (memory, _) = Memory::open(world.folder.path(), &Scribe::at_once());
        let refusals = Refusals::open(world.folder.path(), &Scribe::at_once());
        let deliveries = Deliveries::new(DeliveryMode::Auto, ([127, 0, 0, 1], 1).into(), None).unwrap();
        world.reconciler = Reconciler::new("root".into(), refusals, memory, Pushes::default(), deliveries);
        world.settle();
        for (number, service) in services.iter().enumerate() {
            let peer = Some(([127, 0, 0, 1], 5).into());
            let hello = Hello { service: *service, peer, ..hello("e1") };
            let (stream, snapshots) = (StreamId(number as u64), slot().0);
            world.reconciler.on_arrival(Arrival { stream, hello, snapshots });
        }
        world.reconciler.flush();
        let proxies = world.reconciler.list_proxies();
        assert_eq!(proxies.len(), 1);
        proxies[0].module_delivery()
    };
    let (ads, ecds, lds) = (Service::Ads, Service::Single(ExtensionConfig), Service::Single(Listener));
    for (services, delivery) in [
        (&[ads, ecds][..], admin::ModuleDelivery::Digest),
        (&[ecds, ads], admin::ModuleDelivery::Digest),
        (&[ecds], admin::ModuleDelivery::Inline),
        (&[ads, lds], admin::ModuleDelivery::Inline),
    ] {
        assert_eq!(delivery_of(services), delivery, "{services:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn listeners_outside_ads_are_not_refused_for_what_another_stream_of_the_envoy_was_served() {
    let mut world = World::new();
    world.settle();
    let mut served = Vec::new();
    for (number, service) in [ResourceType::Cluster, ResourceType::Listener].into_iter().enumerate() {
        let (stream, snapshots) = (StreamId(100 + number as u64), slot());
        let mut hello = hello("e1");
        hello.service = Service::Single(service);
        // The stream of listeners asks for no chains, as `xds::stream` does for it.
        hello.proxy.capabilities.chain = service == ResourceType::Cluster;
        world.reconciler.on_arrival(Arrival { stream, hello, snapshots: snapshots.0 });
        if service == ResourceType::Listener {
            assert!(snapshots.1.peek().is_none(), "served before it is decided what it may have");
        }
        world.reconciler.flush();
        served.push(snapshots.1);
    }
    let snapshot = served[1].peek().unwrap();
    let mut references = snapshot.listeners.values().flat_map(|listener| &listener.references);
    assert!(references.all(|(used_type, _)| *used_type != ResourceType::ExtensionConfig));
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_deleted_and_comes_again_does_not_deny_where_it_once_was_stood_in_for() {
    let mut world = World::new();
    world.settle();
    world.plugin("auth", |_| {}).settle();
    let (_, served) = world.connect("e1", &[], true);
    advance(Duration::from_secs(10)).await;
    world.reconciler.flush();
    assert_eq!(world.state("e1", "shop/auth").0, State::StandIn);
    let denying = chain(&served).version.clone();

    world.module("auth", Some("1")).settle();
    assert_eq!(owners(&served), ["shop/auth"]);
    let auth = world.loaded.plugins.pop_first().unwrap();
    world.settle();
    world.modules.clear();
    world.loaded.plugins.insert(auth.0, auth.1);
    world.settle();

    assert_eq!(world.state("e1", "shop/auth").0, State::Pending, "a running proxy does not get what never was ready");
    assert_ne!(chain(&served).version, denying);
}

#[tokio::test(start_paused = true)]
async fn a_problem_that_comes_back_is_told_again() {
    let told = |world: &World| world.reconciler.reported_problems.len();
    let mut world = World::new();
    let mut twin = template();
    twin.id.name = "twin".into();
    twin.listeners[0].port = 9;
    world.loaded.templates.insert(twin.id.clone(), Arc::new(twin.clone()));
    world.settle();
    let _served = world.connect("e1", &[], false);
    assert_eq!(told(&world), 1, "two listeners of one name");

    world.loaded.templates.remove(&twin.id);
    world.settle();
    assert_eq!(told(&world), 0);
    world.loaded.templates.insert(twin.id.clone(), Arc::new(twin));
    world.settle();
    assert_eq!(told(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn the_numbers_of_proxies_that_share_a_node_id_are_given_out_again() {
    let mut world = World::new();
    world.settle();
    let streams: Vec<_> = (0..4).map(|_| world.connect("envoy", &[], false)).collect();
    let ids = |world: &World| world.reconciler.proxies.iter().map(|(_, it)| it.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world), ["envoy", "envoy#2", "envoy#3", "envoy#4"]);
    for (stream, _) in &streams[..3] {
        world.reconciler.on_report(Report::Gone(*stream));
    }
    assert_eq!(ids(&world), ["envoy#4"]);
    let _again = [world.connect("envoy", &[], false), world.connect("envoy", &[], false)];
    assert_eq!(ids(&world), ["envoy#4", "envoy", "envoy#2"]);
}
