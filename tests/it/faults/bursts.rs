//! Many edits at once, and many proxies each of which answers at once.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use wasmplane::snapshot::ResourceType::ExtensionConfig;

use super::{settled, start, with_hello};
use crate::ads::fake::{FakeEnvoy, Received, Way};
use crate::support::modules;
use crate::support::scene::Scene;

const EDITS: usize = 100;
/// A burst lasts a second.
const PACE: Duration = Duration::from_millis(10);
/// The control plane looks at its folders no oftener than that.
const APART: Duration = Duration::from_millis(15);

fn version(response: &Received) -> String {
    // Of the one resource (delta), or of all that is held, which is that one as well.
    format!("{}{}", response.version_info, response.resources[0].1)
}

async fn proxy(scene: &Scene, number: usize) -> FakeEnvoy {
    let way = if number.is_multiple_of(2) { Way::DeltaAds } else { Way::SotwAds };
    settled(scene, way, &format!("e{number}")).await
}

/// D31: edits that come closer than the control plane looks are one change, also for proxies that answer at once.
#[tokio::test]
async fn a_burst_of_edits_costs_each_proxy_no_more_responses_than_there_were_looks() {
    // A few answer within the time between two edits; a thousand do not.
    for proxies in [10, 1000] {
        let scene = with_hello().await;
        let module = scene.control.module("hello.wasm", &modules::hello());
        let edit = |n: usize| scene.plugin("hello", &module, json!({"pluginConfig": {"n": n}}));
        let mut last = Vec::new();
        for number in 0..2 {
            let mut probe = proxy(&scene, number).await;
            edit(EDITS);
            last.push(version(&probe.accept(ExtensionConfig).await));
            edit(1);
            probe.accept(ExtensionConfig).await;
        }
        let mut answering = JoinSet::new();
        let settled = join_all((0..proxies).map(|number| proxy(&scene, number))).await;
        for (number, mut envoy) in settled.into_iter().enumerate() {
            let last = last[number % 2].clone();
            answering.spawn(async move {
                while version(&envoy.accept(ExtensionConfig).await) != last {}
                envoy.finish().await
            });
        }
        let (began, mut pace) = (Instant::now(), interval(PACE));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 2..=EDITS {
            pace.tick().await;
            edit(n);
        }
        let looks = began.elapsed().div_duration_f64(APART) as usize + 2;
        for log in answering.join_all().await {
            let responses = log.len() - start().len();
            assert!((1..=looks).contains(&responses), "{responses} responses, and {looks} looks at most");
        }
    }
}
