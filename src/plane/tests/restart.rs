//! What a restart of the control plane leaves as it was.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_envoy_that_comes_before_the_sources_are_read_is_not_told_that_it_has_no_listeners() {
    let mut world = World::new();
    let (_, served) = world.connect("e1", &[], false);
    advance(Duration::from_secs(60)).await;
    world.reconciler.flush();
    assert!(!world.reconciler.is_open() && served.peek().is_none());

    world.settle();
    assert!(served.peek().unwrap().listeners.contains_key("in"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_plane_with_scripts_only_waits_for_nothing_and_keeps_what_was_good() {
    let script = |text: &str| Program::Lua(LuaProgram { source: text.into() });
    let mut world = World::new();
    world.plugin("script", |plugin| plugin.program = script("good")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);
    let good = chain(&served).version.clone();
    world.plugin("script", |plugin| plugin.program = script("bad")).settle();
    world.answer(stream, chain(&served), Outcome::Refused { message: "script load error".into() });
    assert_eq!(chain(&served).version, good);

    world.restart();
    world.reconciler.on_loaded(Arc::new(world.loaded.clone()));
    world.reconciler.flush();
    assert!(world.reconciler.is_open(), "there is no module to wait for");
    let (_, served) = world.connect("e1", &[], false);
    assert_eq!(chain(&served).version, good);
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_wait_for_a_module_that_is_there_under_another_reference() {
    let mut world = World::new();
    world.plugin("auth", |_| {}).module("auth", Some("1")).settle();
    let (stream, served) = world.connect("e1", &[], false);
    world.accept_all(stream, &served);
    world.plugin("auth", |plugin| wasm(plugin).root_id = "two".into()).settle();
    world.accept_all(stream, &served);

    world.restart();
    // The module room hands out what it is asked for and nothing else.
    let wanted = world.reconciler.on_loaded(Arc::new(world.loaded.clone()));
    world.reconciler.on_modules(Arc::new(BTreeMap::from([(module_ref("auth"), ready("1"))])), Arc::default());
    let wanted_still = world.reconciler.on_loaded(Arc::new(world.loaded.clone()));
    world.reconciler.flush();
    assert_eq!(
        (wanted.0.len(), wanted_still.0.len()),
        (2, 1),
        "pinned by digest until the plugin's own module is there"
    );
    assert!(world.reconciler.is_open());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pushed_before_a_restart_would_know_it() {
    let mut world = World::new();
    let (slow, writer) = scribe();
    world.reconciler = reconciler_with(world.folder.path(), &slow);
    world.loaded.last_good.insert("a.yaml".into(), "text".into());
    world.settle();
    let (_, served) = world.connect("e1", &[], false);
    assert!(served.peek().is_none(), "the disk has not taken it yet");

    let mut written = world.reconciler.memory.written();
    let writing = tokio::spawn(writer.run());
    written.changed().await.unwrap();
    world.reconciler.flush();
    assert!(served.peek().is_some());
    assert_eq!(Memory::open(world.folder.path(), &slow).1.len(), 1);
    drop((slow, world));
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_keeps_a_change_from_proxies_for_two_seconds_at_most() {
    let mut world = World::new();
    let (hanging, _writer) = scribe();
    world.reconciler = reconciler_with(world.folder.path(), &hanging);
    world.loaded.last_good.insert("a.yaml".into(), "text".into());
    world.settle();
    let (_, served) = world.connect("e1", &[], false);
    let deadline = world.reconciler.next_deadline().unwrap();
    tokio::time::sleep_until(deadline).await;
    // More is ordered all the time.
    world.loaded.last_good.insert("a.yaml".into(), "newer text".into());
    world.settle();
    assert!(served.peek().is_some());
    assert_eq!(deadline - tokio::time::Instant::now(), std::time::Duration::ZERO);
}
