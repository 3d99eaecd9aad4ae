//! Two control planes on one folder of manifests, and a folder that is away for a while.

use std::fs;

use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};
use wasmplane::snapshot::STAGING;

use super::{extension, hello, settled, start, url, with_hello};
use crate::ads::fake::{ADS, FakeEnvoy, WAYS, Way};
use crate::support::control_plane::ControlPlane;
use crate::support::scene::Scene;
use crate::support::wait_until;

/// What both control planes are told of delivery: proxies fetch modules at one address, whichever they are connected to.
const DELIVERIES: [&[&str]; 2] =
    [&["--module-delivery", "inline"], &["--module-delivery", "digest", "--modules-url", "http://modules.test:18001"]];

/// An Envoy that accepts all that it is sent until it has its listener and the plugin, and nothing is staged.
async fn filled(control: &ControlPlane, way: Way, is_by_digest: bool) -> FakeEnvoy {
    let mut envoy = FakeEnvoy::at(&url(control), way, "e").await;
    envoy.subscribe(Cluster, &[]).await;
    envoy.accept(Cluster).await;
    let plugin = extension("hello");
    if !is_by_digest {
        envoy.subscribe(ExtensionConfig, &[&plugin]).await;
        envoy.accept(ExtensionConfig).await;
        if way.is_ads() {
            envoy.subscribe(Listener, &[]).await;
            envoy.accept(Listener).await;
        }
        return envoy;
    }
    envoy.subscribe(ExtensionConfig, &[STAGING]).await;
    envoy.accept(ExtensionConfig).await;
    envoy.subscribe(ExtensionConfig, &[&plugin]).await;
    envoy.subscribe(Listener, &[]).await;
    for _ in 0..4 {
        envoy.accept(ExtensionConfig).await;
    }
    let plugin = format!("ecds {plugin}");
    let staging = "ecds wasmplane/staging";
    // The module, which this Envoy says to have at once, goes before the listener, and away after it.
    let clusters = "cds wasmplane/in wasmplane/modules";
    assert_eq!(envoy.log, [clusters, staging, &plugin, staging, "lds in wasmplane/staging", staging], "{way:?}");
    envoy
}

/// D22, D35, S14: equal content has equal versions, and a proxy may move from one to the other at no cost.
#[tokio::test]
async fn a_proxy_that_moves_between_two_control_planes_is_sent_nothing() {
    for delivery in DELIVERIES {
        let is_by_digest = delivery.contains(&"digest");
        let mut scene = Scene::new().await;
        scene.control = scene.control.flags(delivery);
        scene.control.start().await;
        hello(&scene, 1);
        scene.until_status("default/hello", "ready", |status| status["desiredRevision"].is_string()).await;
        let folder = scene.control.modules();
        let mut second = ControlPlane::new().config_dir(&scene.control.config()).flags(delivery);
        second = second.flags(&["--module-files", folder.to_str().unwrap()]);
        second.start().await;
        let ways: &[Way] = if is_by_digest { &ADS } else { &WAYS };
        for way in ways.iter().copied() {
            let mut held = Vec::new();
            for (control, other) in [(&scene.control, &second), (&second, &scene.control)] {
                let mut envoy = filled(control, way, is_by_digest).await;
                let types =
                    [Cluster, ExtensionConfig, Listener].into_iter().filter(|of| *of != Listener || way.is_ads());
                let holds = |of| {
                    let (version_info, resources) = envoy.holds(of);
                    (version_info.to_owned(), resources.clone())
                };
                held.push((types.map(holds).collect::<Vec<_>>(), std::mem::take(&mut envoy.log)));
                envoy.reconnect(&url(other)).await;
                assert_eq!(envoy.finish().await, [""; 0], "{delivery:?} {way:?}");
            }
            assert_eq!(held[0], held[1], "{delivery:?} {way:?}");
        }
    }
}

#[tokio::test]
async fn a_configuration_folder_that_is_away_for_a_while_takes_nothing_away() {
    let scene = with_hello().await;
    let mut envoy = settled(&scene, Way::DeltaAds, "e").await;
    scene.until_all("default/hello", "programmed", 1).await;
    let (config, away) = (scene.control.config(), scene.control.config().with_extension("away"));
    for n in [2, 3] {
        fs::rename(&config, &away).unwrap();
        wait_until("the folder that is away", async || {
            (scene.metric("wasmplane_config_errors").await == 1).then_some(())
        })
        .await;
        // Also for an Envoy that starts meanwhile.
        let mut starting = FakeEnvoy::at(&url(&scene.control), Way::DeltaAds, "starting").await;
        starting.subscribe(Cluster, &[]).await;
        starting.accept(Cluster).await;
        assert_eq!(starting.finish().await, ["cds wasmplane/in"]);
        fs::rename(&away, &config).unwrap();
        hello(&scene, n);
        envoy.accept(ExtensionConfig).await;
    }
    let edit = start().remove(2);
    let expected: Vec<_> = start().into_iter().chain([edit.clone(), edit]).collect();
    assert_eq!(envoy.finish().await, expected);
}
