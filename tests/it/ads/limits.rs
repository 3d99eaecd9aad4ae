//! Clients that come in too great numbers, say too much, or nothing at all.

use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use wasmplane::snapshot::ResourceType::{self, Cluster, Endpoint, ExtensionConfig};
use wasmplane::xds::{AdmissionLimits, Keepalive, Options, Transport};

use super::envoy::{Delta, Sotw, channel, delta, soon, sotw};
use super::fake::{FakeEnvoy, Way};
use super::plane::{Plane, named, resource};
use crate::support::wait_until;

fn admitting(max_streams: usize, max_streams_per_second: u32) -> Options {
    Options { admission: AdmissionLimits { max_streams, max_streams_per_second }, ..Options::default() }
}

async fn refused(url: &str) -> tonic::Status {
    use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    let mut client = AggregatedDiscoveryServiceClient::new(channel(url).await);
    soon(client.delta_aggregated_resources(tokio_stream::pending())).await.unwrap_err()
}

#[tokio::test]
async fn a_stream_above_the_cap_is_told_so_and_taken_in_when_there_is_room() {
    let plane = Plane::run(admitting(1, 100)).await;
    plane.publish([resource(Cluster, "c", "1")]);
    let mut first = Sotw::ads(&plane.url).await;
    first.send(sotw("e", Cluster, &[]));
    first.next().await;
    let status = refused(&plane.url).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "1 streams are open, which is the limit of this control plane (--max-streams)");
    drop(first);
    let mut plane = plane;
    assert_eq!(plane.report().await, "gone");
    let mut next = Sotw::ads(&plane.url).await;
    next.send(sotw("e", Cluster, &[]));
    next.next().await;
}

#[tokio::test]
async fn streams_of_health_and_reflection_take_up_places_and_a_probe_does_not() {
    let plane = Plane::run(admitting(1, 100)).await;
    let mut client = HealthClient::new(channel(&plane.url).await);
    let _watched = soon(client.watch(HealthCheckRequest::default())).await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel(&plane.url).await);
    for status in [
        soon(client.watch(HealthCheckRequest::default())).await.unwrap_err(),
        soon(reflection.server_reflection_info(tokio_stream::pending())).await.unwrap_err(),
        refused(&plane.url).await,
    ] {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    soon(client.check(HealthCheckRequest::default())).await.unwrap();
}

#[tokio::test]
async fn a_connection_above_the_cap_is_closed_and_the_next_one_finds_room_when_there_is_some() {
    use tokio::io::AsyncReadExt as _;
    let plane = Plane::run(admitting(1, 100)).await;
    let address = plane.url.trim_start_matches("http://");
    let mut open = Vec::new();
    for _ in 0..1 + 256 {
        open.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut extra = tokio::net::TcpStream::connect(address).await.unwrap();
    // Nothing of HTTP/2's preface: it is closed.
    assert!(matches!(soon(extra.read(&mut [0; 64])).await, Ok(0) | Err(_)));
    open.clear();
    wait_until("room for a connection", async || {
        let endpoint = tonic::transport::Endpoint::from_shared(plane.url.clone()).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.ok()?);
        client.check(HealthCheckRequest::default()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn streams_that_come_too_fast_are_told_to_come_again() {
    let plane = Plane::run(admitting(100, 1)).await;
    let _first = Sotw::ads(&plane.url).await;
    let status = refused(&plane.url).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("--max-streams-per-second"), "{status}");
}

/// Asks for so many names that begin so, a part with each request; what that ends with.
async fn asking(of: ResourceType, count: usize, at_once: usize, beginning: &str) -> tonic::Status {
    let plane = Plane::serving([]).await;
    let names: Vec<String> = (0..count).map(|number| format!("{beginning}{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stream = Delta::ads(&plane.url).await;
    for names in names.chunks(at_once) {
        stream.send(delta("e", of, names));
    }
    stream.end().await
}

#[tokio::test]
async fn a_client_that_asks_for_more_names_than_anybody_needs_is_refused() {
    for (of, count, at_once, at_most) in [(Endpoint, 60_000, 60_000, 50_000), (ExtensionConfig, 6_000, 3_000, 5_000)] {
        let status = asking(of, count, at_once, "").await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let expected = format!("{count} resource names of one type; a stream may ask for at most {at_most}");
        assert_eq!(status.message(), expected);
    }
}

#[tokio::test]
async fn a_client_that_asks_for_few_names_of_great_length_is_refused() {
    let status = asking(ExtensionConfig, 4_900, 2_450, &"x".repeat(2000)).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().ends_with("bytes; a stream may ask for at most 8388608"), "{status}");
}

#[tokio::test]
async fn a_node_that_says_too_much_is_refused() {
    let plane = Plane::serving([]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw(&"x".repeat(3000), Cluster, &[]));
    let status = stream.end().await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "node.id has 3000 bytes; at most 2048 are taken")
    );
}

#[tokio::test]
async fn a_connection_that_has_reached_its_age_is_asked_to_come_again() {
    let transport = Transport { max_connection_age: Some(Duration::from_millis(50)), ..Transport::default() };
    let plane = Plane::run(Options { transport, ..Options::default() }).await;
    plane.publish([resource(Cluster, "c", "1")]);
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Cluster, &[]));
    stream.next().await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the connection has reached its age, connect again");
}

/// A way to the control plane on which nothing passes any more once it is cut; both ends stay open.
async fn line_to(url: &str, cut: CancellationToken) -> String {
    let server = url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        tokio::select! {
            ended = copy_bidirectional(&mut client, &mut server) => panic!("{ended:?}, before the line was cut"),
            () = cut.cancelled() => std::future::pending().await,
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn an_envoy_that_no_longer_answers_pings_is_gone_and_the_others_are_not() {
    let keepalive = Keepalive { interval: Duration::from_millis(50), timeout: Duration::from_secs(1) };
    let transport = Transport { keepalive, ..Transport::default() };
    let mut plane = Plane::run(Options { transport, ..Options::default() }).await;
    plane.publish([named(Cluster, "c", "1")]);
    let cut = CancellationToken::new();
    let mut lost = FakeEnvoy::at(&line_to(&plane.url, cut.clone()).await, Way::DeltaAds, "lost").await;
    let mut other = FakeEnvoy::at(&plane.url, Way::DeltaAds, "other").await;
    for envoy in [&mut lost, &mut other] {
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        assert!(plane.report().await.ends_with("Accepted"));
    }
    cut.cancel();
    assert_eq!(plane.report().await, "gone");
    plane.publish([named(Cluster, "c", "2")]);
    other.accept(Cluster).await;
    assert_eq!(other.finish().await, ["cds c@1", "cds c@2"]);
}
