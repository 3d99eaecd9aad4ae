//! Many clients at once, and one that lags behind them.

use tokio::task::JoinSet;
use tonic::Code;
use wasmplane::snapshot::Resource;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig};
use wasmplane::xds::Options;

use super::envoy::{Sotw, sotw};
use super::fake::{FakeEnvoy, Way};
use super::plane::{Plane, named};
use crate::support::wait_until;

const CLIENTS: usize = 1000;

fn all(content: &str) -> [Resource; 3] {
    [named(Cluster, "a", "1"), named(Cluster, "c", content), named(ExtensionConfig, "p", content)]
}

fn way(number: usize) -> Way {
    if number.is_multiple_of(2) { Way::DeltaAds } else { Way::SotwAds }
}

/// Clients with a connection each, as Envoys have, which have got all clusters, and have accepted them or not.
async fn crowd(plane: &Plane, accepts: bool) -> Vec<FakeEnvoy> {
    let mut coming = JoinSet::new();
    for number in 0..CLIENTS {
        let url = plane.url.clone();
        coming.spawn(async move {
            let mut envoy = FakeEnvoy::at(&url, way(number), &format!("e{number}")).await;
            envoy.subscribe(Cluster, &[]).await;
            envoy.read(Cluster).await;
            if accepts {
                envoy.ack();
                envoy.subscribe(ExtensionConfig, &["p"]).await;
                envoy.accept(ExtensionConfig).await;
            }
            envoy
        });
    }
    coming.join_all().await
}

/// D31: a client that is busy while a hundred changes come hears of one, and it is the last.
#[tokio::test]
async fn a_burst_of_changes_is_one_more_response_for_each_of_a_thousand_clients() {
    let plane = Plane::serving(all("0")).await;
    let mut clients = crowd(&plane, false).await;
    for change in 1..=100 {
        plane.publish(all(&change.to_string()));
        tokio::task::yield_now().await;
    }
    for envoy in &mut clients {
        envoy.ack();
        envoy.read(Cluster).await;
    }
    for envoy in clients {
        let last = if envoy.way.is_delta() { "cds c@100" } else { "cds a@1 c@100" };
        assert_eq!(envoy.finish().await, ["cds a@1 c@0", last]);
    }
}

/// S14, D11: nobody is sent anything that is unchanged, and everybody the next change.
#[tokio::test]
async fn a_thousand_streams_that_are_cut_and_come_back_at_once() {
    let plane = Plane::serving(all("1")).await;
    let mut clients = crowd(&plane, true).await;
    plane.shutdown.cancel();
    for envoy in &mut clients {
        assert_eq!(envoy.end().await.code(), Code::Unavailable);
    }
    let mut next = Plane::serving(all("1")).await;
    let mut returning = JoinSet::new();
    for mut envoy in clients {
        let url = next.url.clone();
        returning.spawn(async move {
            envoy.log.clear();
            envoy.reconnect(&url).await;
            envoy
        });
    }
    let mut clients = returning.join_all().await;
    for _ in 0..3 * CLIENTS {
        assert!(next.report().await.ends_with("Accepted"), "all three are known to be held");
    }
    next.publish(all("2"));
    for envoy in &mut clients {
        envoy.accept(Cluster).await;
        envoy.accept(ExtensionConfig).await;
    }
    for envoy in clients {
        let clusters = if envoy.way.is_delta() { "cds c@2" } else { "cds a@1 c@2" };
        let mut log = envoy.finish().await;
        log.sort();
        assert_eq!(log, [clusters, "ecds p@2"]);
    }
}

/// S29: what it never read is let go of.
#[tokio::test]
async fn what_a_stalled_client_has_missed_takes_no_memory() {
    let large = |content: &str| named(Cluster, "c", &content.repeat(1 << 20));
    let mut plane = Plane::run(Options::default()).await;
    plane.publish([large("a")]);
    let stalled = Sotw::ads(&plane.url).await;
    stalled.send(sotw("stalled", Cluster, &[]));
    super::envoy::soon(plane.hellos.recv()).await.unwrap();
    let mut other = Sotw::ads(&plane.url).await;
    other.send(sotw("other", Cluster, &[]));
    let mut published = Vec::new();
    for content in ["b", "c", "d", "e", "f", "g", "h"] {
        let response = other.next().await;
        other.ack(&response, &[]);
        published.push(plane.publish([large(content)]));
    }
    other.next().await;
    let newest = published.pop();
    wait_until("the end of what nobody wants any more", async || {
        published.iter().all(|snapshot| snapshot.upgrade().is_none()).then_some(())
    })
    .await;
    assert!(newest.is_some_and(|newest| newest.upgrade().is_some()));
    drop(stalled);
}
