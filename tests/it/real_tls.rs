//! TLS on the xDS port, with real Envoys: who is let in, and what happens when certificates end or are renewed.

use std::time::{Duration, SystemTime};

use serde_json::json;
use wasmplane::commands::bootstrap::ClientTls;

use crate::support::certificates::{Authority, Identity};
use crate::support::control_plane::ControlPlane;
use crate::support::envoy::{CHAIN, Envoy, EnvoySetup, FILTER, envoy};
use crate::support::scene::Scene;
use crate::support::{modules, wait_until};

/// A scene whose control plane shows `server` and believes the clients of `clients`.
async fn scene(server: &Identity, clients: &Authority) -> Scene {
    let files = [("cert", &server.cert), ("key", &server.key), ("client-ca", &clients.ca())]
        .map(|(name, path)| format!("--xds-tls-{name}={}", path.display()));
    let mut scene = Scene::new().await;
    scene.control = scene.control.flags(&files.each_ref().map(String::as_str));
    scene.control.start().await;
    scene
}

fn tls(authority: &Authority, client: &Identity) -> ClientTls {
    ClientTls { ca: authority.ca(), identity: Some((client.cert.clone(), client.key.clone())) }
}

async fn connected(control: &ControlPlane) -> usize {
    let proxies = control.ask(&["proxies", "--format", "json"]).await.json();
    proxies["proxies"].as_array().map_or(0, Vec::len)
}

/// Starts an Envoy that the control plane turns away with these words in its log.
async fn is_turned_away(scene: &Scene, setup: EnvoySetup, words: &str) {
    let envoy = setup.start(scene.control.xds()).await;
    wait_until(words, async || {
        let failed = scene.control.logged("TLS handshake failed");
        failed.iter().any(|line| line["error"].as_str().is_some_and(|error| error.contains(words))).then_some(())
    })
    .await;
    // An attempt under way counts as connected until it has failed.
    wait_until("an Envoy that is not connected", async || {
        (envoy.stat("control_plane.connected_state").await == 0).then_some(())
    })
    .await;
    assert_eq!(connected(&scene.control).await, 0);
    let metrics = scene.control.admin_get("/metrics").await.unwrap().body;
    assert!(!metrics.contains("wasmplane_xds_tls_handshakes_failed_total 0"), "{metrics}");
}

async fn gets_a_plugin(scene: &Scene, n: u8) {
    let url = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &url, json!({"pluginConfig": {"n": n}}));
    scene.until_header("x-hello", Some(&format!(r#"{{"n":{n}}}"#))).await;
}

#[tokio::test]
async fn an_envoy_with_the_right_certificate_gets_its_plugins() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let authority = Authority::new("ours");
        let scene = scene(&authority.sign("server"), &authority).await;
        let _envoy = scene.envoy(setup.tls(tls(&authority, &authority.sign("proxy")))).await;
        gets_a_plugin(&scene, 1).await;
    }
}

#[tokio::test]
async fn envoys_with_a_foreign_an_expired_or_no_certificate_are_turned_away() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (authority, foreign) = (Authority::new("ours"), Authority::new("another"));
    let scene = scene(&authority.sign("server"), &authority).await;
    let yesterday = SystemTime::now() - Duration::from_secs(3600);
    let expired = authority.sign_until("expired", yesterday);
    let nobody = ClientTls { ca: authority.ca(), identity: None };
    for (tls, words) in [
        (tls(&authority, &foreign.sign("proxy")), "UnknownIssuer"),
        (tls(&authority, &expired), "certificate expired"),
        (nobody, "peer sent no certificates"),
    ] {
        is_turned_away(&scene, setup.clone().tls(tls), words).await;
    }
}

#[tokio::test]
async fn an_envoy_does_not_talk_to_a_control_plane_of_another_name_or_authority() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (authority, foreign) = (Authority::new("ours"), Authority::new("another"));
    let hour = SystemTime::now() + Duration::from_secs(3600);
    let other_name = authority.sign_for("other", "127.0.0.2", hour);
    for (server, alert) in [(other_name, "CertificateUnknown"), (foreign.sign("server"), "UnknownCA")] {
        let scene = scene(&server, &authority).await;
        let setup = setup.clone().tls(tls(&authority, &authority.sign("proxy")));
        is_turned_away(&scene, setup, alert).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_drops_no_stream() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (old, new) = (Authority::new("ours"), Authority::new("another"));
    let server = old.sign("server");
    let scene = scene(&server, &old).await;
    let first: Envoy = scene.envoy(setup.clone().tls(tls(&old, &old.sign("proxy")))).await;
    gets_a_plugin(&scene, 1).await;

    // Half of it is there: the old pair stays.
    let renewed = new.sign("server");
    std::fs::copy(&renewed.cert, &server.cert).unwrap();
    wait_until("the complaint about half a pair", async || {
        let complaint = "certificates not read again: the ones from before stay in use";
        (!scene.control.logged(complaint).is_empty()).then_some(())
    })
    .await;
    std::fs::copy(&renewed.key, &server.key).unwrap();
    std::fs::copy(new.ca(), old.ca()).unwrap();
    let mixed = ClientTls { ca: new.ca(), ..tls(&new, &new.sign("proxy")) };
    let second = setup.clone().node("envoy-2").tls(mixed).start(scene.control.xds()).await;
    wait_until("both Envoys", async || (connected(&scene.control).await == 2).then_some(())).await;
    gets_a_plugin(&scene, 2).await;
    assert_eq!(first.stat("cluster.wasmplane-xds.upstream_cx_total").await, 1);
    drop(second);
}

/// At that moment, and not at its next message.
#[tokio::test]
async fn an_envoy_whose_certificate_ends_is_asked_to_leave() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let authority = Authority::new("ours");
    let scene = scene(&authority.sign("server"), &authority).await;
    let soon = authority.sign_until("proxy", SystemTime::now() + Duration::from_secs(12));
    let _envoy = scene.envoy(setup.tls(tls(&authority, &soon))).await;
    assert_eq!(connected(&scene.control).await, 1);
    wait_until("the end of its certificate", async || (connected(&scene.control).await == 0).then_some(())).await;
    assert!(scene.get().await.is_ok(), "what it has goes on");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_ends_serve_with_one_clear_error() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.sign("one"), authority.sign("other"));
    let cases = [
        (&one.cert, &other.key, "cannot be used together"),
        (&one.key, &one.key, "no certificate in it (PEM is expected)"),
        (&one.cert, &one.cert, "no private key in it (PEM is expected)"),
    ];
    for (cert, key, words) in cases {
        let flags = ["--xds-tls-cert", cert.to_str().unwrap(), "--xds-tls-key", key.to_str().unwrap()];
        let printed = ControlPlane::new().flags(&flags).start_in_vain().await;
        assert_eq!(printed.code, Some(2), "{printed:?}");
        assert!(printed.stderr.contains(words), "{printed:?}");
    }
}

#[tokio::test]
async fn an_address_beyond_this_machine_needs_tls_or_the_word_that_it_does_not() {
    let open = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let printed = ControlPlane::new().xds_listen(open).start_in_vain().await;
    assert_eq!(printed.code, Some(2), "{printed:?}");
    assert!(printed.stderr.contains("--insecure-plaintext"), "{printed:?}");
    let authority = Authority::new("ours");
    let server = authority.sign("server");
    let flags = ["--xds-tls-cert", server.cert.to_str().unwrap(), "--xds-tls-key", server.key.to_str().unwrap()];
    ControlPlane::new().flags(&flags).xds_listen(open).start().await;
    ControlPlane::new().flags(&["--insecure-plaintext"]).xds_listen(open).start().await;
}
