//! What is kept in memory, and what is let go.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_bytes_of_a_plugin_that_is_gone_do_not_stay_in_memory_while_its_proxies_are_connected() {
    let bytes = bytes::Bytes::from(vec![7; 100_000]);
    let module = Module { digest: Digest::of(&bytes), bytes: bytes.clone(), refusals: Vec::new(), root_id: None };
    let mut world = World::new();
    world.modules.insert(module_ref("auth"), ModuleState::Ready(Code::Module(Arc::new(module))));
    world.plugin("auth", |_| {}).settle();
    let (stream, served) = world.connect("e1", &[], false);
    let name = "extensions.istio.io/wasmplugin/shop.auth";
    let Some(Extension::Known(alone)) = served.peek().unwrap().extensions.resolve(name) else {
        panic!("the plugin applies");
    };
    world.answer(stream, alone, Outcome::Accepted);
    assert!(!bytes.is_unique());

    world.loaded.plugins.clear();
    world.modules.clear();
    world.settle();
    assert!(bytes.is_unique());
}
