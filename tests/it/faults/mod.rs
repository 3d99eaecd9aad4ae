//! A control plane in trouble, and clients that make trouble: hand-written Envoys against the built binary.
//!
//! What stalls, what is cut, and what lags behind has its tests in `ads`, what real Envoys go through in `real_trouble`,
//! `real_fleet` and `real_restart`.

mod bursts;
mod kills;
mod refusers;
mod replicas;
mod strangers;

use serde_json::json;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use crate::ads::fake::{FakeEnvoy, Way};
use crate::support::control_plane::ControlPlane;
use crate::support::modules;
use crate::support::scene::Scene;

/// Under which a plugin of the tests travels to Envoys that know no chains.
fn extension(plugin: &str) -> String {
    format!("extensions.istio.io/wasmplugin/default.{plugin}")
}

fn url(control: &ControlPlane) -> String {
    format!("http://{}", control.xds())
}

/// Writes the plugin `hello` in its `n`th version.
fn hello(scene: &Scene, n: usize) {
    let module = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &module, json!({"pluginConfig": {"n": n}}));
}

/// A scene with that plugin, which is ready.
async fn with_hello() -> Scene {
    let scene = Scene::inline().await;
    hello(&scene, 1);
    scene.until_status("default/hello", "ready", |status| status["desiredRevision"].is_string()).await;
    scene
}

/// An Envoy that has got its cluster, its listener and the plugin.
async fn settled(scene: &Scene, way: Way, node_id: &str) -> FakeEnvoy {
    let mut envoy = FakeEnvoy::at(&url(&scene.control), way, node_id).await;
    envoy.subscribe(Cluster, &[]).await;
    envoy.accept(Cluster).await;
    envoy.subscribe(Listener, &[]).await;
    envoy.accept(Listener).await;
    envoy.subscribe(ExtensionConfig, &[&extension("hello")]).await;
    envoy.accept(ExtensionConfig).await;
    envoy
}

/// What [`settled`] reads.
fn start() -> Vec<String> {
    vec!["cds wasmplane/in".into(), "lds in".into(), format!("ecds {}", extension("hello"))]
}
