//! The support itself, before anything is tested with it: real Envoys with static bootstraps, and no control plane.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wasmplane::model::Digest;

use crate::support::control_plane::wasmplane;
use crate::support::envoy::{CHAIN, FILTER, NO_WASM, envoy, ready_bootstrap};
use crate::support::http::{Response, get};
use crate::support::load::Load;
use crate::support::module_server::ModuleServer;
use crate::support::registry::{Guard, Image, Registry, registry};
use crate::support::upstream::{TcpEcho, Upstream};
use crate::support::{free_port, modules, wait_until};

/// A plugin of a static bootstrap: its name, its module, its configuration.
type StaticPlugin<'a> = (&'a str, Vec<u8>, Option<&'a str>);

/// A bootstrap (JSON is YAML) with one listener that runs these plugins in this order.
fn static_bootstrap(port: u16, upstream: u16, folder: &Path, plugins: &[StaticPlugin<'_>]) -> String {
    let mut filters: Vec<Value> = plugins.iter().map(|plugin| wasm_filter(folder, plugin)).collect();
    filters.push(json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}));
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
        "http_filters": filters,
    });
    let at = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({
        "admin": {"address": at(0)},
        "static_resources": {
            "listeners": [{"name": "in", "address": at(port),
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": connection_manager}]}]}],
            "clusters": [{"name": "upstream", "type": "STATIC", "load_assignment": {"cluster_name": "upstream",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}]}}],
        },
    })
    .to_string()
}

fn wasm_filter(folder: &Path, (name, module, configuration): &StaticPlugin<'_>) -> Value {
    let file = folder.join(format!("{name}.wasm"));
    std::fs::write(&file, module).unwrap();
    let mut config = json!({
        "name": name,
        "vm_config": {"vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": file}}},
    });
    if let Some(text) = configuration {
        config["configuration"] = json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text});
    }
    json!({"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": config}})
}

async fn first_answer(port: u16) -> Response {
    wait_until("an answer", async || get(port, "/").await.ok()).await
}

#[tokio::test]
async fn a_real_envoy_runs_the_modules_of_the_tests() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let (upstream, port, folder) = (Upstream::start().await, free_port(), tempfile::tempdir().unwrap());
        let plugins = [
            ("first", modules::order("a"), None),
            ("second", modules::order("b"), None),
            ("hello", modules::hello(), Some(r#"{"greeting":"hello"}"#)),
            ("header", modules::header("x-plugin", "one"), None),
            ("counter", modules::counter(), None),
            ("picky", modules::picky("x-picky", "fine"), Some(r#"{"a":1}"#)),
        ];
        let bootstrap = static_bootstrap(port, upstream.port(), folder.path(), &plugins);
        let running = setup.concurrency(1).start_with(&bootstrap).await;

        assert_eq!(first_answer(port).await.header("x-count"), Some("1"));
        for _ in 0..10 {
            get(port, "/").await.unwrap();
        }
        let answer = get(port, "/path").await.unwrap();

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-hello"), Some(r#"{"greeting":"hello"}"#));
        assert_eq!(answer.header("x-plugin"), Some("one"));
        assert_eq!(answer.header("x-picky"), Some("fine"));
        assert_eq!((answer.header("x-count"), answer.header("x-configured")), (Some("12"), Some("1")));
        assert_eq!(answer.header("x-upstream"), Some("upstream"));
        assert_eq!((answer.order().as_str(), &answer.echo()["path"]), ("ab", &json!("/path")));
        assert_eq!((upstream.requests(), running.stat("http.in.downstream_rq_2xx").await), (12, 12));
        assert_eq!(running.stat("no.such_stat").await, 0);
        assert!(running.config_dump().await["configs"].is_array());
        running.kill().await;
    }
}

#[tokio::test]
async fn the_example_plugin_needs_no_configuration() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (upstream, port, folder) = (Upstream::start().await, free_port(), tempfile::tempdir().unwrap());
    let bootstrap = static_bootstrap(port, upstream.port(), folder.path(), &[("hello", modules::hello(), None)]);
    let _running = setup.start_with(&bootstrap).await;
    assert_eq!(first_answer(port).await.header("x-hello"), Some("hello"));
}

#[tokio::test]
async fn envoy_refuses_the_modules_that_it_should() {
    let Some(setup) = envoy(CHAIN).await else { return };
    for (name, module) in [
        ("refuses", modules::refuses_its_configuration()),
        ("picky", modules::picky("x-picky", "never")),
        ("import", modules::bad_import()),
        ("abi", modules::no_abi_marker()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bootstrap = static_bootstrap(free_port(), 1, folder.path(), &[(name, module, None)]);
        let log = setup.clone().log_of_a_failed_start(&bootstrap).await;
        assert!(log.contains(&format!("Unable to create Wasm plugin {name}")), "{log}");
    }
}

#[tokio::test]
async fn an_envoy_without_v8_starts_and_answers() {
    let Some(setup) = envoy(NO_WASM).await else { return };
    let (upstream, port, folder) = (Upstream::start().await, free_port(), tempfile::tempdir().unwrap());
    let _running = setup.start_with(&static_bootstrap(port, upstream.port(), folder.path(), &[])).await;
    assert_eq!(first_answer(port).await.status, 200);
}

#[tokio::test]
async fn a_plugin_that_traps_fails_its_request() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (upstream, port, folder) = (Upstream::start().await, free_port(), tempfile::tempdir().unwrap());
    let bootstrap = static_bootstrap(port, upstream.port(), folder.path(), &[("traps", modules::traps(), None)]);
    let _running = setup.start_with(&bootstrap).await;
    assert_eq!((first_answer(port).await.status, upstream.requests()), (503, 0));
}

#[tokio::test]
async fn the_load_generator_counts_requests_failures_and_connections() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (upstream, port, folder) = (Upstream::start().await, free_port(), tempfile::tempdir().unwrap());
    let plugins = [("hello", modules::hello(), Some("one"))];
    let running = setup.start_with(&static_bootstrap(port, upstream.port(), folder.path(), &plugins)).await;
    first_answer(port).await;

    let load = Load::start(port, 3);
    wait_until("some load", async || (load.requests() >= 100).then_some(())).await;
    let calm = load.stop().await;
    calm.assert_untouched(3);
    assert_eq!((calm.seen["one"], upstream.requests()), (calm.requests, calm.requests + 1));

    // Envoy announces that it will close: each connection ends after an answer, and no request is lost.
    let load = Load::start(port, 3);
    wait_until("some load", async || (load.requests() >= 100).then_some(())).await;
    running.admin_post("/drain_listeners?graceful&skip_exit").await;
    wait_until("Envoy closing its connections", async || {
        (running.stat("http.in.downstream_cx_drain_close").await >= 3).then_some(())
    })
    .await;
    let drained = load.stop().await;
    drained.assert_no_failure();
    assert!(drained.closed >= 3, "{drained:?}");

    let load = Load::start(port, 3);
    wait_until("some load", async || (load.requests() >= 100).then_some(())).await;
    running.kill().await;
    let at_the_end = load.requests();
    wait_until("some failures", async || (load.requests() >= at_the_end + 10).then_some(())).await;
    let broken = load.stop().await;
    assert!(broken.failed > 0 && broken.closed >= 3, "{broken:?}");
}

#[tokio::test]
async fn the_module_server_counts_hits() {
    let server = ModuleServer::start().await;
    server.put("/a.wasm", modules::hello());
    server.fail("/broken.wasm", axum::http::StatusCode::BAD_GATEWAY);
    let port = server.url("/").rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    assert_eq!(get(port, "/a.wasm").await.unwrap().status, 200);
    assert_eq!(get(port, "/broken.wasm").await.unwrap().status, 502);
    assert_eq!(get(port, "/missing.wasm").await.unwrap().status, 404);
    assert_eq!([server.hits("/a.wasm"), server.hits("/missing.wasm"), server.hits("/other.wasm")], [1, 1, 0]);
}

#[tokio::test]
async fn the_tcp_upstream_sends_back_what_it_gets() {
    let upstream = TcpEcho::start().await;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream.port())).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"ping");
}

#[tokio::test]
async fn every_supported_envoy_takes_the_ready_bootstraps() {
    for version in [CHAIN, FILTER, NO_WASM] {
        let Some(setup) = envoy(version).await else { return };
        for file in ["delta-ads.yaml", "sotw-ads.yaml", "static-ecds.yaml"] {
            // Nobody is there: Envoy starts all the same, and tries again.
            let nobody = ([127, 0, 0, 1], free_port()).into();
            let bootstrap = ready_bootstrap(file, nobody, free_port(), free_port());
            let running = setup.clone().start_with(&bootstrap).await;
            let info = running.admin_get("/server_info").await;
            assert!(info.contains("\"NAMESPACE\": \"default\""), "{info}");
            running.kill().await;
        }
    }
}

#[tokio::test]
async fn the_bootstrap_command_prints_yaml() {
    let printed = wasmplane(&["bootstrap", "--node-id", "web-1", "--namespace", "shop", "--label", "app=web"]).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert!(printed.stdout.contains("NAMESPACE: \"shop\""), "{}", printed.stdout);
    assert_eq!(wasmplane(&["bootstrap", "--label", "app"]).await.code, Some(2));
}

#[tokio::test]
async fn a_registry_serves_what_was_published_to_whom_it_should() {
    let Some(mut open) = registry(Guard::Nobody).await else { return };
    let path = format!("/v2/some/plugin/blobs/sha256:{}", Digest::of(b"{}"));
    let port = |registry: &Registry| registry.host().rsplit_once(':').unwrap().1.parse().unwrap();
    let image = Image { manifest: b"a manifest".to_vec(), blobs: vec![b"{}".to_vec()] };
    open.publish("some/plugin", "v1", &image);
    assert_eq!(get(port(&open), &path).await.unwrap().body, "{}");
    let address = open.host();
    open.restart().await;
    assert_eq!(open.host(), address);
    for guard in [Guard::Passwords, Guard::Tokens] {
        let guarded = registry(guard).await.unwrap();
        guarded.publish("some/plugin", "v1", &image);
        assert_eq!(get(port(&guarded), &path).await.unwrap().status, 401, "{guard:?}");
    }
}
