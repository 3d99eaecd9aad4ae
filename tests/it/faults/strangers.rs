//! Clients that behave as none should.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wasmplane::snapshot::ResourceType::{ExtensionConfig, Listener};

use super::{hello, settled, start, url, with_hello};
use crate::ads::fake::{ADS, FakeEnvoy, Way};
use crate::support::scene::Scene;
use crate::support::wait_until;

const ADS_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

async fn streams(scene: &Scene) -> u64 {
    let mut streams = 0;
    for protocol in ["delta", "sotw"] {
        streams += scene.metric(&format!("wasmplane_xds_streams{{protocol=\"{protocol}\"}}")).await;
    }
    streams
}

/// Bytes that are no HTTP/2 at all: until the control plane has closed the connection.
async fn shout(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // It may hang up before it has heard all of them.
    let _ = socket.write_all(bytes).await;
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

/// A call whose body is not what it should be: the gRPC status, where it comes as a header, or nothing.
async fn call(address: SocketAddr, path: &str, body: Vec<u8>) -> Option<String> {
    // Plain text, but it wants one.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = client.post(format!("http://{address}{path}")).header("content-type", "application/grpc").body(body);
    let response = request.send().await.unwrap();
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned);
    let _ = response.bytes().await;
    status
}

#[tokio::test]
async fn garbage_ends_its_own_connection_and_nobody_elses() {
    let scene = with_hello().await;
    let mut envoy = settled(&scene, Way::DeltaAds, "e").await;
    let address = scene.control.xds();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
    shout(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    shout(address, &random).await;
    shout(address, &[&preface[..], &[0xff; 1000]].concat()).await;
    shout(address, &[&preface[..], &random].concat()).await;
    // No message; one that says it is compressed; one of 4 GiB; one that is cut; one that is no protobuf.
    for body in [
        vec![],
        vec![1, 0, 0, 0, 1, 0],
        vec![0, 0xff, 0xff, 0xff, 0xff, 0],
        vec![0, 0, 0, 1, 0, 10],
        vec![0, 0, 0, 0, 3, 0xff, 0xff, 0xff],
        random,
    ] {
        call(address, ADS_PATH, body).await;
    }
    assert_eq!(call(address, "/no.such.Service/Method", vec![]).await.as_deref(), Some("12"));
    wait_until("the end of all streams but one", async || (streams(&scene).await == 1).then_some(())).await;
    hello(&scene, 2);
    envoy.accept(ExtensionConfig).await;
    let expected: Vec<_> = start().into_iter().chain([start().remove(2)]).collect();
    assert_eq!(envoy.finish().await, expected);
    assert_eq!(scene.control.admin_get("/livez").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_envoy_that_speaks_both_protocols_at_once_is_served_by_both() {
    let scene = with_hello().await;
    let mut both = [settled(&scene, ADS[0], "e").await, settled(&scene, ADS[1], "e").await];
    scene.until_all("default/hello", "programmed", 2).await;
    let ids: Vec<_> = scene.until_proxies(2).await.iter().map(|proxy| proxy["id"].clone()).collect();
    assert_eq!(ids, ["e", "e#2"]);
    hello(&scene, 2);
    for envoy in &mut both {
        envoy.accept(ExtensionConfig).await;
    }
    scene.until_all("default/hello", "programmed", 2).await;
    for envoy in both {
        let expected: Vec<_> = start().into_iter().chain([start().remove(2)]).collect();
        assert_eq!(envoy.finish().await, expected);
    }
}

#[tokio::test]
async fn an_envoy_that_dies_while_it_warms_is_forgotten_and_the_next_gets_everything() {
    for way in ADS {
        let scene = with_hello().await;
        let mut dying = FakeEnvoy::at(&url(&scene.control), way, "e").await;
        dying.subscribe(Listener, &[]).await;
        dying.read(Listener).await;
        scene.until_all("default/hello", "pending", 1).await;
        drop(dying);
        scene.until_proxies(0).await;
        scene.until_all("default/hello", "programmed", 0).await;
        let next = settled(&scene, way, "e").await;
        scene.until_all("default/hello", "programmed", 1).await;
        assert_eq!(next.finish().await, start(), "{way:?}");
    }
}

#[tokio::test]
async fn an_envoy_that_comes_back_under_another_name_is_another_envoy() {
    let scene = with_hello().await;
    for (way, name) in [(Way::DeltaAds, "first"), (Way::DeltaAds, "second"), (Way::SotwAds, "first")] {
        let envoy = settled(&scene, way, name).await;
        scene.until_all("default/hello", "programmed", 1).await;
        assert_eq!(scene.until_proxies(1).await[0]["id"], name);
        assert_eq!(envoy.finish().await, start());
        scene.until_proxies(0).await;
    }
}
