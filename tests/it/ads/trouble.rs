//! Starts, ends, and clients that do not read.

use tonic::Code;
use wasmplane::snapshot::Resource;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::envoy::{Delta, Sotw, delta, soon, sotw};
use super::fake::{ADS, FakeEnvoy};
use super::plane::{Plane, named, resource};
use crate::support::wait_until;

/// Far larger than what a connection buffers.
fn large(content: &str) -> Resource {
    resource(Cluster, "c", &content.repeat(1 << 20))
}

/// S33: at once, where nothing is under way.
#[tokio::test]
async fn a_shutdown_ends_every_stream_with_unavailable() {
    let plane = Plane::serving([resource(Cluster, "c", "1")]).await;
    let (mut sotw_stream, mut delta_stream) = (Sotw::ads(&plane.url).await, Delta::ads(&plane.url).await);
    sotw_stream.send(sotw("e", Cluster, &[]));
    delta_stream.send(delta("f", Cluster, &[]));
    sotw_stream.next().await;
    delta_stream.next().await;
    plane.shutdown.cancel();
    assert_eq!(sotw_stream.end().await.code(), Code::Unavailable);
    assert_eq!(delta_stream.end().await.code(), Code::Unavailable);
    drop((sotw_stream, delta_stream));
    soon(plane.served).await.unwrap();
}

/// S33: what was decided before the shutdown arrives whole, however slowly it is read, and then the retriable end.
#[tokio::test]
async fn a_shutdown_first_sends_what_is_under_way() {
    let names = ["p", "q", "r"];
    for way in ADS {
        let large = |name| named(ExtensionConfig, name, &"1".repeat(1 << 20));
        let plane = Plane::serving(names.map(large)).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &names).await;
        wait_until("three responses on their way", async || {
            (plane.metric("xds_responses_total{type=\"ecds\"}") == 3).then_some(())
        })
        .await;
        plane.shutdown.cancel();
        for name in names {
            let response = envoy.read(ExtensionConfig).await;
            assert!(response.resources[0].0.starts_with(name) && response.bytes > 1 << 20, "{way:?}: {response:?}");
        }
        assert_eq!(envoy.end().await.code(), Code::Unavailable, "{way:?}");
        drop(envoy);
        soon(plane.served).await.unwrap();
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let plane = Plane::serving([large("1")]).await;
    let stalled = Sotw::ads(&plane.url).await;
    let mut reading = Sotw::ads(&plane.url).await;
    for stream in [&stalled, &reading] {
        stream.send(sotw("e", Cluster, &[]));
    }
    reading.next().await; // So that the other one has its response on its way, too.
    plane.shutdown.cancel();
    soon(plane.served).await.unwrap();
    drop(stalled);
}

/// S34: the first answer is not an empty one.
#[tokio::test]
async fn a_client_that_comes_before_the_sources_are_loaded_is_held_and_then_answered() {
    let mut plane = Plane::empty().await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Cluster, &[]));
    soon(plane.hellos.recv()).await.unwrap();
    plane.publish([resource(Cluster, "c", "1")]);
    assert_eq!(stream.next().await.resources.len(), 1);
}

/// S29, D32: one response waits for it, and then the newest.
#[tokio::test]
async fn a_client_that_does_not_read_disturbs_nobody_and_gets_the_latest_when_it_does() {
    let plane = Plane::serving([large("1")]).await;
    let mut stalled = Sotw::ads(&plane.url).await;
    stalled.send(sotw("stalled", Cluster, &[]));
    let mut other = Sotw::ads(&plane.url).await;
    other.send(sotw("other", Cluster, &[]));
    for version in ["2", "3", "4"] {
        let response = other.next().await;
        other.ack(&response, &[]);
        plane.publish([large(version)]);
    }
    assert_eq!(other.next().await.resources[0].value, large("4").body.to_bytes());

    let first = stalled.next().await;
    stalled.ack(&first, &[]);
    let second = stalled.next().await;
    stalled.ack(&second, &[]);
    assert_eq!(second.resources[0].value, large("4").body.to_bytes());
    stalled.send(sotw("", Listener, &[]));
    assert_eq!(stalled.next().await.type_url, Listener.type_url());
}
