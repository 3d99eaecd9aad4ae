//! Two control planes on one folder of manifests, and a folder that is away for a while.

use std::fs;

use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::{extension, hello, settled, start, url, with_hello};
use crate::ads::fake::{FakeEnvoy, WAYS, Way};
use crate::support::control_plane::ControlPlane;
use crate::support::wait_until;

/// D22, D35, S14: equal content has equal versions, and a proxy may move from one to the other at no cost.
#[tokio::test]
async fn a_proxy_that_moves_between_two_control_planes_is_sent_nothing() {
    let scene = with_hello().await;
    let folder = scene.control.modules();
    let flags = ["--module-files", folder.to_str().unwrap(), "--module-delivery", "inline"];
    let mut second = ControlPlane::new().config_dir(&scene.control.config()).flags(&flags);
    second.start().await;
    for way in WAYS {
        let mut versions = Vec::new();
        for control in [&scene.control, &second] {
            let mut envoy = FakeEnvoy::at(&url(control), way, "e").await;
            let mut seen = Vec::new();
            for (of, names) in [(Cluster, vec![]), (ExtensionConfig, vec![extension("hello")])] {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                envoy.subscribe(of, &names).await;
                let response = envoy.read(of).await;
                envoy.ack();
                seen.push((response.in_words(), response.version_info, response.resources));
            }
            if way.is_ads() {
                envoy.subscribe(Listener, &[]).await;
                let response = envoy.read(Listener).await;
                envoy.ack();
                seen.push((response.in_words(), response.version_info, response.resources));
            }
            versions.push(seen);
            let other = if control.xds() == second.xds() { &scene.control } else { &second };
            envoy.log.clear();
            envoy.reconnect(&url(other)).await;
            assert_eq!(envoy.finish().await, [""; 0], "{way:?}");
        }
        assert_eq!(versions[0], versions[1], "{way:?}");
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
