//! Clients that refuse everything, and clients that never answer.

use tokio::task::JoinSet;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::{extension, hello, settled, start, url, with_hello};
use crate::ads::fake::{ADS, FakeEnvoy, WAYS, Way};

const REFUSERS: usize = 1000;
const CHANGES: usize = 3;

fn accepts_the_old_one(number: usize) -> bool {
    number % 8 < 4
}

#[tokio::test]
async fn a_thousand_proxies_that_refuse_everything_cost_two_messages_each_per_change() {
    let scene = with_hello().await;
    let mut coming = JoinSet::new();
    for number in 0..REFUSERS {
        let url = url(&scene.control);
        let way = WAYS[number % WAYS.len()];
        coming.spawn(async move {
            let mut envoy = FakeEnvoy::at(&url, way, &format!("e{number}")).await;
            envoy.subscribe(ExtensionConfig, &[&extension("hello")]).await;
            envoy.accept(ExtensionConfig).await;
            envoy
        });
    }
    let mut refusers = coming.join_all().await;
    scene.until_all("default/hello", "programmed", REFUSERS as u64).await;
    for change in 0..CHANGES {
        hello(&scene, 2 + change);
        for (number, envoy) in refusers.iter_mut().enumerate() {
            envoy.refuse(ExtensionConfig, "Unable to create Wasm plugin default/hello").await;
            // The old one back; who has refused that, too, has nothing to go back to from then on.
            if accepts_the_old_one(number) {
                envoy.accept(ExtensionConfig).await;
            } else if change == 0 {
                envoy.refuse(ExtensionConfig, "Unable to create Wasm plugin default/hello").await;
            }
        }
        scene.until_all("default/hello", "rejected", REFUSERS as u64).await;
    }
    for (number, envoy) in refusers.into_iter().enumerate() {
        let messages = if accepts_the_old_one(number) { 2 * CHANGES } else { 1 + CHANGES };
        let way = envoy.way;
        assert_eq!(envoy.finish().await.len(), 1 + messages, "{way:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_never_answers_is_sent_one_message_per_type_and_holds_up_nobody() {
    for way in ADS {
        let scene = with_hello().await;
        let mut silent = FakeEnvoy::at(&url(&scene.control), way, "silent").await;
        silent.subscribe(Cluster, &[]).await;
        silent.read(Cluster).await;
        silent.subscribe(ExtensionConfig, &[&extension("hello")]).await;
        silent.read(ExtensionConfig).await;
        silent.subscribe(Listener, &[]).await;
        let mut other = settled(&scene, Way::DeltaAds, "other").await;
        for n in 2..10 {
            hello(&scene, n);
            other.accept(ExtensionConfig).await;
        }
        scene
            .until_status("default/hello", "programmed on one, pending on the other", |status| {
                status["proxies"]["programmed"] == 1 && status["proxies"]["pending"] == 1
            })
            .await;
        let extension = start().remove(2);
        assert_eq!(silent.finish().await, ["cds wasmplane/in", &extension], "{way:?}");
        assert_eq!(other.finish().await.len(), 3 + 8);
    }
}
