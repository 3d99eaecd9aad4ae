//! What pulling takes of memory.

use serde_json::json;

use crate::support::registry::{Guard, image, registry};
use crate::support::scene::Scene;

/// Sound Wasm of this size that no Envoy would take.
fn large(number: u8, size: usize) -> Vec<u8> {
    let mut section = Vec::from(*b"\x03pad");
    section.resize(size, number);
    let mut module = Vec::from(*b"\0asm\x01\0\0\0\0");
    let mut rest = section.len();
    while rest >= 0x80 {
        module.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    module.push(rest as u8);
    [module, section].concat()
}

#[tokio::test]
async fn ten_large_modules_are_pulled_in_little_memory() {
    const SIZE: usize = 50 << 20;
    let Some(registry) = registry(Guard::Nobody).await else { return };
    for number in 0..10 {
        registry.publish(&format!("large-{number}"), "v1", &image(&large(number, SIZE)));
    }
    let scene = Scene::start().await;
    let before = scene.control.peak_memory();
    for number in 0..10 {
        let url = format!("oci://{}", registry.reference(&format!("large-{number}:v1")));
        scene.plugin(&format!("large-{number}"), &url, json!({}));
    }
    for number in 0..10 {
        let id = format!("default/large-{number}");
        let refused = |status: &serde_json::Value| {
            status["moduleError"].as_str().is_some_and(|it| it.contains("not a proxy-wasm plugin"))
        };
        scene.until_status(&id, "inspected and refused", refused).await;
    }
    // Two at a time from one registry; all ten at once would be 500 MB.
    let grown = scene.control.peak_memory() - before;
    assert!(grown < 5 * SIZE as u64, "it took {} MB more", grown >> 20);
}
