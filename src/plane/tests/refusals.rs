//! What proxies refuse, and what runs in its place.

use super::*;

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
