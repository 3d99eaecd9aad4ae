//! What proxies refuse, and what runs in its place.

use super::*;

/// Two proxies that have accepted the plugin `auth`.
fn two_that_run_auth() -> (World, [(StreamId, Snapshots); 2]) {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let proxies = ["one", "two"].map(|node_id| world.connect(node_id, &[], false));
    for (stream, served) in &proxies {
        world.accept_all(*stream, served);
    }
    (world, proxies)
}

#[tokio::test(start_paused = true)]
async fn a_refused_revision_gives_way_to_the_one_that_this_proxy_took_before() {
    let (mut world, [(one, served_one), (two, served_two)]) = two_that_run_auth();
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
async fn a_bad_edit_while_a_new_module_is_compiled_goes_back_to_that_module_and_not_to_the_old_one() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("c")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);

    world.module("auth", Some("go")).settle();
    let go = chain(&served);
    // Envoy takes its time over it.
    let config = serde_json::json!({"bad": true}).as_object().cloned();
    world.plugin("auth", |plugin| wasm(plugin).config = config).settle();
    let edited = chain(&served);
    world.answer(stream, go.clone(), Outcome::Accepted);
    world.answer(stream, edited, refused("shop/auth"));

    assert_eq!(chain(&served).version, go.version);
    world.answer(stream, go, Outcome::Accepted);
    assert_eq!(world.state("e1", "shop/auth").0, State::Rejected);
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
async fn a_refusal_is_not_forgotten_when_a_later_stream_of_the_envoy_holds_nothing_yet() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let arrive = |world: &mut World, service, is_new_process| {
        world.streams += 1;
        let (stream, (snapshots, served)) = (StreamId(world.streams), slot());
        let hello = Hello { service: Service::Single(service), is_new_process, ..hello("e1") };
        world.reconciler.on_arrival(Arrival { stream, hello, snapshots });
        world.reconciler.flush();
        (stream, served)
    };
    let (stream, served) = arrive(&mut world, ResourceType::ExtensionConfig, false);
    let snapshot: Arc<Snapshot> = served.peek().unwrap();
    let auth = match snapshot.extensions.resolve("extensions.istio.io/wasmplugin/shop.auth") {
        Some(Extension::Known(resource)) => resource,
        other => panic!("{other:?}"),
    };
    world.answer(stream, auth, refused("shop/auth"));
    for _ in 0..2 {
        world.restart();
        world.settle();
        arrive(&mut world, ResourceType::Cluster, false);
        arrive(&mut world, ResourceType::Route, true);
        assert_eq!(world.state("e1", "shop/auth").0, State::Rejected);
    }
}

#[tokio::test(start_paused = true)]
async fn two_refused_edits_in_a_row_leave_the_working_plugin_in_place() {
    let (mut world, [(one, served_one), (two, served_two)]) = two_that_run_auth();
    let first = chain(&served_two).version.clone();

    // Each edit is good on the other proxy.
    for edit in ["2", "3", "4"] {
        world.module("auth", Some(edit)).settle();
        world.accept_all(one, &served_one);
        let message = "Unable to create Wasm plugin shop/auth";
        world.answer(two, chain(&served_two), Outcome::Refused { message: message.into() });
        assert_eq!(chain(&served_two).version, first, "edit {edit}");
        world.accept_all(two, &served_two);
    }
    assert_eq!(owners(&served_two), ["shop/auth"]);

    // Nor does a restart take it away, with the proxy back or not.
    world.restart();
    world.find_stored(&["1", "2", "3", "4"]);
    let (_, served_one) = world.connect("one", &[], false);
    assert_ne!(chain(&served_one).version, first);
    let (_, served_two) = world.connect("two", &[], false);
    assert_eq!(chain(&served_two).version, first);
}

#[tokio::test(start_paused = true)]
async fn revisions_that_no_proxy_runs_are_let_go() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("0")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    let (slow, served_slow) = world.connect("slow", &[], false);
    world.accept_all(slow, &served_slow);
    for edit in ["1", "2", "3", "4"] {
        world.module("auth", Some(edit)).settle();
        world.accept_all(stream, &served);
    }
    let auth = PluginId::new(PluginKind::WasmPlugin, "shop", "auth");
    let good = |world: &World| world.reconciler.table.get(&auth).unwrap().good.len();
    assert_eq!(good(&world), 3, "the newest two, and what the slow proxy runs");
    world.reconciler.on_report(Report::Gone(slow));
    world.reconciler.flush();
    assert_eq!(good(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bad_script_takes_none_of_its_new_neighbours_down() {
    let mut world = World::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "script"];
    for name in &names[..7] {
        world.plugin(name, |_| {}).module(name, Some(name));
    }
    world.plugin("script", |plugin| plugin.program = Program::Lua(LuaProgram { source: "oops".into() })).settle();
    let (stream, served) = world.connect("e1", &[], true);
    let is_bad = |owners: &[String]| owners.contains(&"shop/script".to_owned()).then_some("script load error: oops");

    let mut held = None;
    let sent = world.play(stream, &served, &mut held, is_bad);
    // Everything, then everything but the script.
    assert_eq!((sent, owners(&served).len()), (2, 7));
    assert_eq!(world.state("e1", "shop/script"), (State::Rejected, "script load error: oops".into()));

    // Repaired, it runs.
    world.plugin("script", |plugin| plugin.program = Program::Lua(LuaProgram { source: "fine".into() })).settle();
    assert_eq!(world.play(stream, &served, &mut held, |_| None), 1);
    assert_eq!(owners(&served).len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_names_nobody_is_narrowed_down_by_halving() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for bad in names {
        let mut world = World::new();
        for name in names {
            world.plugin(name, |_| {}).module(name, Some("1"));
        }
        world.settle();
        let (stream, served) = world.connect("e1", &[], false);
        let mut held = None;
        assert_eq!(world.play(stream, &served, &mut held, |_| None), 1);
        for name in names {
            world.module(name, Some("2"));
        }
        world.settle();
        let revision = |chain: &Resource| {
            chain.parts.iter().map(|part| (part.owner.to_string(), part.revision.clone())).collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (revision(held.as_ref().unwrap()), revision(&chain(&served)));
        let owner = format!("shop/{bad}");

        let mut sent = 0;
        while held.as_ref().unwrap().version != chain(&served).version {
            let offered = chain(&served);
            assert_eq!(offered.parts.len(), 8, "every plugin runs in some revision all the time");
            sent += 1;
            if revision(&offered)[&owner] == new[&owner] {
                let message = "something about this is wrong".into();
                world.answer(stream, offered, Outcome::Refused { message });
                world.answer(stream, held.clone().unwrap(), Outcome::Accepted);
            } else {
                held = Some(offered.clone());
                world.answer(stream, offered, Outcome::Accepted);
            }
        }
        assert!(sent <= 1 + 3 + 1, "{sent} chains for {bad}: the new one, the halves, all but the culprit");
        let runs = revision(&chain(&served));
        for name in names.map(|name| format!("shop/{name}")) {
            assert_eq!(runs[&name], if name == owner { &old } else { &new }[&name], "{name}");
        }
        assert_eq!(world.state("e1", &owner), (State::Rejected, "something about this is wrong".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_proxies_that_refuse_everything_cost_two_messages_each() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let mut proxies: Vec<_> = (0..1000)
        .map(|number| {
            let (stream, served) = world.connect(&format!("e{number}"), &[], false);
            (stream, served, None)
        })
        .collect();
    for (stream, served, held) in &mut proxies {
        assert_eq!(world.play(*stream, served, held, |_| None), 1);
    }
    world.module("auth", Some("2")).settle();
    for (stream, served, held) in &mut proxies {
        // The new one; the way back is not counted, and there is nothing after it.
        assert_eq!(world.play(*stream, served, held, |_| Some("Unable to create Wasm plugin shop/auth")), 1);
    }
    assert_eq!(world.listed("shop/auth").counts.unwrap().rejected, 1000);
    let first = proxies[0].1.peek().unwrap();
    assert!(proxies.iter().all(|(_, served, _)| Arc::ptr_eq(&first, &served.peek().unwrap())), "one kind");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_everything_and_names_nobody_costs_a_few_messages_per_change() {
    let names: Vec<_> = (0..64).map(|number| format!("p{number:02}")).collect();
    let mut world = World::new();
    for name in &names {
        world.plugin(name, |plugin| plugin.fail_strategy = FailStrategy::FailOpen).module(name, Some("1"));
    }
    world.settle();
    let (stream, served) = world.connect("e1", &[], true);
    let refuses_all = |owners: &[String]| (!owners.is_empty()).then_some("out of memory");
    let mut held = None;
    // The last is the empty chain, which it takes.
    let sent = world.play(stream, &served, &mut held, refuses_all);
    assert_eq!((sent, owners(&served).len()), (16, 0));
    assert_eq!(
        world.state("e1", "shop/p63"),
        (State::Rejected, "refused together with 61 others: out of memory".into())
    );

    // It takes what is edited again, all of it.
    for name in &names {
        world.module(name, Some("2"));
    }
    world.settle();
    assert_eq!(world.play(stream, &served, &mut held, |_| None), 1);
    assert_eq!(owners(&served).len(), 64);
    for name in &names[..8] {
        world.module(name, Some("3"));
    }
    world.settle();
    let before = held.as_ref().unwrap().version.clone();
    let is_new = move |sent: &Resource| sent.version != before;
    let mut sent = 0;
    while is_new(&chain(&served)) {
        sent += 1;
        world.answer(stream, chain(&served), Outcome::Refused { message: "out of memory".into() });
        world.answer(stream, held.clone().unwrap(), Outcome::Accepted);
        assert!(sent <= 9, "no end to it");
    }
    assert_eq!((sent, owners(&served).len()), (9, 64), "what ran goes on");
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_accepted_after_all_is_not_shown_as_rejected_for_ever() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    let whole = chain(&served);
    world.answer(stream, whole.clone(), Outcome::Refused { message: "out of memory".into() });
    assert_eq!(world.state("e1", "shop/auth").0, State::Rejected);
    // Another of its chains with the same plugin was under way, and is taken.
    world.answer(stream, whole.clone(), Outcome::Accepted);
    world.accept_all(stream, &served);
    assert_eq!(
        (chain(&served).version.clone(), world.state("e1", "shop/auth").0),
        (whole.version.clone(), State::Programmed)
    );

    world.reconciler.on_report(Report::Gone(stream));
    world.restart();
    world.settle();
    let (_, served) = world.connect("e1", &[], false);
    assert_eq!(chain(&served).version, whole.version);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_with_nobody_to_blame_is_shown() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).plugin("log", |plugin| plugin.priority = 1);
    world.module("auth", Some("1")).module("log", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);
    let before = chain(&served);

    // The same plugins in another order: nothing is new.
    world.plugin("auth", |plugin| plugin.priority = 2).settle();
    world.answer(stream, chain(&served), Outcome::Refused { message: "not in this order".into() });
    world.answer(stream, before, Outcome::Accepted);

    let errors = |world: &World| world.reconciler.list_proxies().remove(0).errors;
    let name = "extension wasmplane/in/PreAuthN-BeforeRouter";
    assert_eq!(errors(&world), [format!("{name}: not in this order")]);
    let pending = (State::Pending, format!("{name} was refused: not in this order"));
    assert_eq!(world.state("e1", "shop/auth"), pending);

    world.plugin("auth", |_| {}).settle();
    assert_eq!(errors(&world), Vec::<String>::new());
    assert_eq!(world.state("e1", "shop/auth").0, State::Programmed);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_even_the_way_back_is_not_told_to_deny() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);
    let old = chain(&served);
    world.module("auth", Some("2")).settle();
    world.answer(stream, chain(&served), refused("shop/auth"));
    // The xDS port sends what was accepted last by itself.
    world.answer(stream, old.clone(), refused("shop/auth"));
    assert_eq!(chain(&served).version, old.version);
    assert_eq!(world.state("e1", "shop/auth").0, State::Rejected);
    world.module("auth", Some("3")).settle();
    world.accept_all(stream, &served);
    assert_eq!(world.state("e1", "shop/auth").0, State::Programmed);
}

#[tokio::test(start_paused = true)]
async fn neighbours_of_a_bad_script_are_not_stuck_after_a_second_late_refusal() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.plugin(name, |_| {}).module(name, Some(name));
    }
    // The other way round, half of the suspects would be tried without those that stand first.
    world.plugin("script", |plugin| {
        plugin.program = Program::Lua(LuaProgram { source: "oops".into() });
        plugin.priority = 10;
    });
    world.settle();
    let (stream, served) = world.connect("e1", &[], true);
    let is_bad = |owners: &[String]| owners.contains(&"shop/script".to_owned()).then_some("script load error: oops");
    let oops = || Outcome::Refused { message: "script load error: oops".into() };
    let first = chain(&served);

    // Sent again before the first refusal was heard of, as an Envoy does that asks for the name anew.
    world.answer(stream, first.clone(), oops());
    assert_eq!(owners(&served), ["shop/a", "shop/b", "shop/c"]);
    world.answer(stream, first.clone(), oops());
    assert_eq!(owners(&served), ["shop/a", "shop/b", "shop/c"], "and not what was refused, which is never sent again");
    world.play(stream, &served, &mut None, is_bad);
    assert_eq!(owners(&served), ["shop/a", "shop/b", "shop/c"]);
    assert_eq!(world.state("e1", "shop/script").0, State::Rejected);

    // A third time, after it was found.
    world.accept_all(stream, &served);
    world.answer(stream, first, oops());
    assert_eq!(owners(&served), ["shop/a", "shop/b", "shop/c"]);
    for name in ["shop/a", "shop/b", "shop/c"] {
        assert_eq!(world.state("e1", name).0, State::Programmed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_of_a_fleet_with_one_id_refused_is_not_taken_from_the_others_by_a_restart() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let mut fleet: Vec<_> = (0..4).map(|_| world.connect("envoy", &[], false)).collect();
    for (stream, served) in &fleet {
        world.accept_all(*stream, served);
    }
    world.module("auth", Some("2")).settle();
    let second = chain(&fleet[0].1).version.clone();
    for (stream, served) in &fleet[1..] {
        world.accept_all(*stream, served);
    }
    world.answer(fleet[0].0, chain(&fleet[0].1), refused("shop/auth"));
    assert_ne!(chain(&fleet[0].1).version, second);

    world.restart();
    world.find_stored(&["1", "2"]);
    fleet = (0..4).map(|_| world.connect("envoy", &[], false)).collect();
    assert!(fleet.iter().all(|(_, served)| chain(served).version == second));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_comes_back_before_its_former_connection_is_found_dead_is_remembered() {
    let (mut world, [(one, served), _]) = two_that_run_auth();
    let first = chain(&served).version.clone();
    world.module("auth", Some("2")).settle();
    world.answer(one, chain(&served), refused("shop/auth"));
    let (_, served) = world.connect("one", &[], false);
    assert_eq!(chain(&served).version, first);
}
