//! The files of `envoy-bootstrap/`, as shipped, against the real control plane.

use serde_json::json;

use crate::support::control_plane::ControlPlane;
use crate::support::envoy::{CHAIN, FILTER, envoy, ready_bootstrap};
use crate::support::scene::{plugin, until_answer};
use crate::support::upstream::Upstream;
use crate::support::{free_port, modules};

async fn a_ready_bootstrap_works(version: &str, file: &str) {
    let Some(setup) = envoy(version).await else { return };
    let (upstream, port) = (Upstream::start().await, free_port());
    let mut control = ControlPlane::new();
    control.start().await;
    let example = include_str!("../../examples/hello/proxytemplate.yaml");
    let (at, to) = (format!("port: {port}"), format!("port: {}", upstream.port()));
    control.write("template.yaml", &example.replace("port: 8080", &at).replace("port: 9090", &to));
    let _running = setup.start_with(&ready_bootstrap(file, control.xds(), port, upstream.port())).await;

    until_answer(port, "an answer without a plugin", |it| it.status == 200 && it.header("x-hello").is_none()).await;
    let url = control.module("hello.wasm", &modules::hello());
    let write = |n: u8| {
        let selector = json!({"matchLabels": {"app": "hello"}});
        control.write("hello.yaml", &plugin("hello", &url, json!({"selector": selector, "pluginConfig": {"n": n}})));
    };
    for n in [1, 2] {
        write(n);
        let value = format!(r#"{{"n":{n}}}"#);
        until_answer(port, "the plugin's answer", |answer| answer.header("x-hello") == Some(&value)).await;
    }
    let plugins = control.ask(&["plugins", "--format", "json"]).await.json();
    assert_eq!(plugins["plugins"][0]["proxies"]["total"], 1, "{plugins}");
    control.delete("hello.yaml");
    until_answer(port, "an answer without it", |it| it.status == 200 && it.header("x-hello").is_none()).await;
}

#[tokio::test]
async fn each_ready_bootstrap_gets_a_plugin_its_edit_and_its_end() {
    for version in [CHAIN, FILTER] {
        for file in ["delta-ads.yaml", "sotw-ads.yaml", "static-ecds.yaml"] {
            a_ready_bootstrap_works(version, file).await;
        }
    }
}
