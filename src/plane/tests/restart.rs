//! What a restart of the control plane leaves as it was.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_envoy_that_comes_before_the_sources_are_read_is_not_told_that_it_has_no_listeners() {
    let mut world = World::new();
    let (_, served) = world.connect("e1", &[], false);
    advance(Duration::from_secs(60)).await;
    world.reconciler.flush();
    assert!(!world.reconciler.is_open() && served.borrow().is_none());

    world.settle();
    assert!(served.borrow().as_ref().unwrap().listeners.contains_key("in"));
}
