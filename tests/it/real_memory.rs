//! What pulling and unpacking take of memory, at their worst.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::support::images::{container, gzip};
use crate::support::module_server::ModuleServer;
use crate::support::registry::{Guard, image, registry};
use crate::support::scene::Scene;
use crate::support::{modules, wait_at_most};

/// Sound Wasm of about this size that no Envoy would take.
fn large(number: u8, size: usize) -> Vec<u8> {
    [&b"\0asm\x01\0\0\0"[..], &modules::custom_section(number, size)].concat()
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

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// An archive with one file, which is this part so many times over: packed so that the part is there once per gzip member.
fn archive_of(name: &str, part: &[u8], times: usize) -> Vec<u8> {
    let size = part.len() * times;
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_size(size as u64);
    header.set_cksum();
    let end = vec![0; size.next_multiple_of(512) - size + 1024];
    [gzip(header.as_bytes()), gzip(part).repeat(times), gzip(&end)].concat()
}

#[tokio::test]
async fn bombs_of_all_kinds_at_once_are_refused_in_little_memory() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let frames = zstd::encode_all(ZEROS.as_slice(), 1).unwrap().repeat(300);
    // Packed without being smaller, so that packed again it is a bomb within a bomb.
    let mut stored = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    stored.write_all(&ZEROS).unwrap();
    let stored = stored.finish().unwrap();
    let module_limit = "more than the limit of 256 MiB";
    let no_module = "not a WebAssembly module";
    let bodies = [
        ("gzip", gzip(&ZEROS).repeat(300), module_limit),
        ("zstd", frames, module_limit),
        ("nested", archive_of("a.wasm", &stored, 240), no_module),
        ("nested-again", archive_of("a.wasm", &stored, 240), no_module),
    ];
    let layer = archive_of("plugin.wasm", &ZEROS, 250);
    let scene = Scene::start().await;
    let before = scene.control.peak_memory();
    let mut servers = Vec::new();
    for (name, body, _) in &bodies {
        // Two at a time from one server: each has its own.
        let server = ModuleServer::start().await;
        server.put("/a", body.clone());
        scene.plugin(name, &server.url("/a"), json!({}));
        servers.push(server);
    }
    container(&[layer]).publish(&registry, "bomb", "v1");
    scene.plugin("layer", &format!("oci://{}", registry.reference("bomb:v1")), json!({}));
    for (name, reason) in bodies.iter().map(|(name, _, reason)| (*name, *reason)).chain([("layer", no_module)]) {
        // Without optimisation it takes a while.
        wait_at_most(Duration::from_secs(180), &format!("{name}: {reason}"), async || {
            let status = scene.status(&format!("default/{name}")).await;
            status["moduleError"].as_str().filter(|said| said.contains(reason)).map(drop)
        })
        .await;
    }
    let grown = scene.control.peak_memory() - before;
    assert!(grown < 600 << 20, "it took {} MB more", grown >> 20);
}
