//! Modules by digest on real Envoys: fetched once through the staging listener, named by a few hundred bytes from then on.

use std::time::Duration;

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::{Bootstrap, Protocol};

use crate::real_hitless::{Kind, nothing_fails};
use crate::real_refusals::a_refused_plugin_is_stood_in_for;
use crate::real_restart::a_restart_sends_nothing;
use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::load::Load;
use crate::support::scene::{KINDS, Scene};
use crate::support::{by_digest, modules, wait_at_most};

/// Larger than what `auto` sends inline.
fn large(module: Vec<u8>) -> Vec<u8> {
    modules::padded(module, 300_000)
}

/// How many bytes each ECDS response had that a proxy's streams were sent.
async fn extension_bytes(scene: &Scene) -> Vec<u64> {
    let printed = scene.control.ask(&["proxies", "--messages", "envoy-1", "--format", "json"]).await.json();
    let streams = printed["streams"].as_array().expect("the proxy is known").iter();
    let messages = streams.flat_map(|stream| stream["messages"].as_array().expect("it has messages"));
    let extensions = messages.filter(|message| message["type"] == "ecds");
    extensions.filter_map(|message| message["response"]["bytes"].as_u64()).collect()
}

async fn modules_sent(scene: &Scene) -> usize {
    extension_bytes(scene).await.iter().filter(|bytes| **bytes > 100_000).count()
}

async fn fetches(scene: &Scene) -> u64 {
    scene.metric(r#"wasmplane_module_served_total{result="whole"}"#).await
}

/// How the only proxy gets its modules, and why.
async fn delivery(scene: &Scene) -> (Value, Value) {
    let proxy = scene.until_proxies(1).await.remove(0);
    (proxy["moduleDelivery"].clone(), proxy["moduleDeliveryReason"].clone())
}

#[tokio::test]
async fn a_large_module_is_fetched_once_and_an_edit_is_a_small_message() {
    for (version, protocol) in KINDS {
        let Some((scene, _running)) = Scene::with_envoy(version, protocol).await else { return };
        let url = scene.control.module("hello.wasm", &large(modules::hello()));
        for number in 0..5 {
            scene.plugin("hello", &url, json!({"pluginConfig": {"n": number}}));
            scene.until_header("x-hello", Some(&format!(r#"{{"n":{number}}}"#))).await;
        }
        scene.until_all("default/hello", "programmed", 1).await;
        assert_eq!(delivery(&scene).await, (json!("digest"), json!("")));
        assert_eq!((fetches(&scene).await, modules_sent(&scene).await), (1, 0));

        // Another one joins, and the first is replaced: traffic never goes without it.
        let load = Load::watching(scene.port, 2, "x-hello");
        let order = scene.control.module("order.wasm", &large(modules::order("o")));
        scene.plugin("order", &order, json!({}));
        scene.until("both", |answer| answer.order() == "o").await;
        let before = scene.status("default/hello").await;
        scene.control.module("hello.wasm", &modules::padded(modules::hello(), 400_000));
        scene.until_status("default/hello", "replaced", |it| it["moduleDigest"] != before["moduleDigest"]).await;
        scene.until_all("default/hello", "programmed", 1).await;
        let report = load.stop().await;
        report.assert_no_failure();
        assert_eq!(report.seen.keys().collect::<Vec<_>>(), [r#"{"n":4}"#]);
        assert_eq!((fetches(&scene).await, modules_sent(&scene).await), (3, 0));
    }
}

#[tokio::test]
async fn an_envoy_that_starts_fetches_its_modules_before_it_takes_requests() {
    for (version, protocol) in KINDS {
        let Some(setup) = envoy(version).await else { return };
        let setup = setup.protocol(protocol);
        let scene = Scene::start().await;
        for name in ["a", "b"] {
            let url = scene.control.module(&format!("{name}.wasm"), &large(modules::order(name)));
            scene.plugin(name, &url, json!({"priority": if name == "a" { 2 } else { 1 }}));
            scene.until_module(&format!("default/{name}")).await;
        }
        let _running = setup.start(scene.control.xds()).await;
        let first = scene.until("the first answer", |_| true).await;
        assert_eq!((first.status, first.order().as_str()), (200, "ab"), "{version} {protocol:?}");
        for id in ["default/a", "default/b"] {
            scene.until_all(id, "programmed", 1).await;
        }
        assert_eq!((fetches(&scene).await, modules_sent(&scene).await), (2, 0));
    }
}

/// A bootstrap as it was before modules were delivered by digest.
fn without_staging(bootstrap: &Bootstrap) -> String {
    let text = bootstrap.to_string();
    let (before, listener) = text.split_once("  listeners:\n").expect("it has the staging listener");
    let (_, after) = listener.split_once("  clusters:\n").expect("and a cluster");
    format!("{before}  clusters:\n{after}")
}

#[tokio::test]
async fn an_envoy_without_the_staging_listener_begins_inline_and_is_moved_over() {
    for (version, protocol) in KINDS {
        let Some(setup) = envoy(version).await else { return };
        let setup = setup.protocol(protocol);
        let scene = Scene::start().await;
        let url = scene.control.module("hello.wasm", &large(modules::hello()));
        scene.plugin("hello", &url, json!({"pluginConfig": {"n": 1}}));
        scene.until_module("default/hello").await;
        let bootstrap = without_staging(&setup.bootstrap(scene.control.xds()));
        let _running = setup.start_with(&bootstrap).await;
        scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;
        scene.until_all("default/hello", "programmed", 1).await;
        assert_eq!(modules_sent(&scene).await, 1);
        scene.plugin("hello", &url, json!({"pluginConfig": {"n": 2}}));
        scene.until_header("x-hello", Some(r#"{"n":2}"#)).await;
        scene.until_all("default/hello", "programmed", 1).await;
        assert_eq!(delivery(&scene).await, (json!("digest"), json!("")));
        assert_eq!((fetches(&scene).await, modules_sent(&scene).await), (1, 1), "{version} {protocol:?}");
    }
}

#[tokio::test]
async fn a_module_server_out_of_reach_means_inline_and_the_status_says_so() {
    for (version, protocol) in [(CHAIN, Protocol::Delta), (FILTER, Protocol::Sotw)] {
        let Some(setup) = envoy(version).await else { return };
        let mut scene = Scene::new().await;
        scene.control = scene.control.flags(&["--modules-url", "http://127.0.0.1:1"]);
        scene.control.start().await;
        let _running = scene.envoy(setup.protocol(protocol)).await;
        let url = scene.control.module("hello.wasm", &large(modules::hello()));
        scene.plugin("hello", &url, json!({"pluginConfig": {"n": 1}}));
        let (reason, inline) = ("the proxy did not ask the module server", json!("inline"));
        wait_at_most(Duration::from_secs(60), "inline delivery", async || {
            let (delivery, why) = delivery(&scene).await;
            (delivery == inline && why.as_str()?.starts_with(reason)).then_some(())
        })
        .await;
        scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;
        scene.until_all("default/hello", "programmed", 1).await;
        // Also after a reconnect: it is the same process.
        scene.control.restart().await;
        scene.plugin("hello", &url, json!({"pluginConfig": {"n": 2}}));
        scene.until_header("x-hello", Some(r#"{"n":2}"#)).await;
    }
}

#[tokio::test]
async fn with_flag_inline_nobody_listens_for_fetches_and_modules_travel_inside() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let mut scene = Scene::new().await;
    scene.control = scene.control.flags(&["--module-delivery", "inline"]);
    scene.control.start().await;
    let _running = scene.envoy(setup).await;
    let url = scene.control.module("hello.wasm", &large(modules::hello()));
    scene.plugin("hello", &url, json!({"pluginConfig": {"n": 1}}));
    scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;
    assert_eq!(delivery(&scene).await, (json!("inline"), json!("--module-delivery inline")));
    assert_eq!((modules_sent(&scene).await, scene.control.logged("listening").len()), (1, 2));
}

#[tokio::test]
async fn changes_by_digest_fail_no_short_and_no_long_request_in_chains() {
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_of_plugins()).collect();
    by_digest(nothing_fails(CHAIN, Protocol::Delta, &kinds, 6)).await;
    by_digest(nothing_fails(CHAIN, Protocol::Sotw, &[Kind::ReplaceModule, Kind::AnchorComesAndGoes], 4)).await;
}

#[tokio::test]
async fn changes_by_digest_fail_no_short_and_no_long_request_in_filters() {
    by_digest(nothing_fails(FILTER, Protocol::Delta, &Kind::ALL, 4)).await;
}

#[tokio::test]
async fn a_plugin_that_is_refused_by_digest_is_stood_in_for_and_its_neighbours_go_on() {
    for (version, protocol) in KINDS {
        by_digest(a_refused_plugin_is_stood_in_for(version, protocol)).await;
    }
}

#[tokio::test]
async fn a_control_plane_that_delivers_by_digest_sends_after_a_restart_only_what_has_changed() {
    for (version, protocol) in KINDS {
        by_digest(a_restart_sends_nothing(version, protocol)).await;
    }
}

/// Prints the table of `docs/performance.md`: what an edit of one plugin's configuration costs, both ways.
#[tokio::test]
#[ignore = "a report, which takes a minute"]
async fn delivery_report() {
    println!(
        "| modules | edited | delivery | bytes per edit | until it is in traffic, median | wasmplane CPU | Envoy CPU |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (count, megabytes, edited) in [(1, 20, 0), (5, 2, 2)] {
        println!("{}", delivery_row(count, megabytes, edited, "inline").await);
        by_digest(async { println!("{}", delivery_row(count, megabytes, edited, "by digest").await) }).await;
    }
}

async fn delivery_row(count: usize, megabytes: usize, edited: usize, way: &str) -> String {
    const EDITS: u32 = 10;
    let Some(setup) = envoy(CHAIN).await else { return String::new() };
    let mut scene = Scene::new().await;
    if way == "inline" {
        scene.control = scene.control.flags(&["--module-delivery", "inline"]);
    }
    scene.control.start().await;
    let running = scene.envoy(setup).await;
    let name = |number: usize| format!("p{number}");
    let url = |number: usize| {
        // As many modules, not one module as often: the name of the header differs.
        let module = modules::header(&format!("x-{number}"), "there");
        let module = if number == edited { modules::hello() } else { module };
        scene.control.module(&format!("p{number}.wasm"), &modules::padded(module, megabytes << 20))
    };
    let urls: Vec<_> = (0..count).map(url).collect();
    for (number, url) in urls.iter().enumerate() {
        scene.plugin(&name(number), url, json!({"pluginConfig": {"n": 0}, "priority": count - number}));
        scene.until_all(&format!("default/{}", name(number)), "programmed", 1).await;
    }
    let cpu = || (scene.control.cpu_time(), running.cpu_time());
    let before = cpu();
    let already: u64 = extension_bytes(&scene).await.iter().sum();
    let mut times = Vec::new();
    for edit in 1..=EDITS {
        let begun = std::time::Instant::now();
        scene.plugin(&name(edited), &urls[edited], json!({"pluginConfig": {"n": edit}, "priority": count - edited}));
        scene.until_header("x-hello", Some(&format!(r#"{{"n":{edit}}}"#))).await;
        times.push(begun.elapsed());
    }
    scene.until_all(&format!("default/{}", name(edited)), "programmed", 1).await;
    let bytes = extension_bytes(&scene).await.iter().sum::<u64>() - already;
    let after = cpu();
    times.sort();
    let milliseconds = |time: Duration| time.as_millis();
    format!(
        "| {count} × {megabytes} MiB | {} | {way} | {} | {} ms | {} ms | {} ms |",
        name(edited),
        bytes / u64::from(EDITS),
        milliseconds(times[times.len() / 2]),
        milliseconds((after.0 - before.0) / EDITS),
        milliseconds((after.1 - before.1) / EDITS),
    )
}
