//! The examples on real Envoys: each feature of WasmPlugin and TrafficExtension does what its example says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::control_plane::ControlPlane;
use crate::support::envoy::{CHAIN, Envoy, FILTER, envoy};
use crate::support::http::{Response, get, get_with};
use crate::support::load::Load;
use crate::support::scene::{Scene, until_answer};
use crate::support::upstream::{TcpEcho, Upstream};
use crate::support::{free_port, wait_until};

/// An example as `examples/run` runs it, on ports and in folders of the test's own.
struct Example {
    scene: Scene,
    envoy: Envoy,
    /// In the place of 8080 to 8083.
    ports: [u16; 4],
    /// The manifests as they are on disk now.
    texts: BTreeMap<String, String>,
    _tcp: TcpEcho,
}

impl Example {
    /// `None` where that Envoy is not to be had.
    async fn start(name: &str, version: &str) -> Option<Self> {
        Self::start_edited(name, version, str::to_owned).await
    }

    /// With manifests that differ from those of the folder. The Envoy has one worker: one VM per plugin.
    async fn start_edited(name: &str, version: &str, edit: impl Fn(&str) -> String) -> Option<Self> {
        let setup = envoy(version).await?.concurrency(1).namespace("shop").label("app", "web");
        let setup = setup.label("gateway.networking.k8s.io/gateway-name", "edge");
        let (upstream, tcp) = (Upstream::start().await, TcpEcho::start().await);
        let ports: [u16; 4] = std::array::from_fn(|_| free_port());
        let mut scene = Scene { control: ControlPlane::new(), upstream, port: ports[0] };
        put_modules(&scene.control);
        let mut to = vec![("/tmp/wasmplane/modules".to_owned(), scene.control.modules().display().to_string())];
        to.extend((8080..).zip(ports).map(|(from, to): (u16, _)| (from.to_string(), to.to_string())));
        to.push(("9090".into(), scene.upstream.port().to_string()));
        to.push(("9091".into(), tcp.port().to_string()));
        let mut texts = BTreeMap::new();
        for (file, text) in read_folder(&format!("examples/{name}"), "yaml") {
            let text = to.iter().fold(text, |text, (from, to)| replace_words(&text, from, to));
            texts.insert(file, edit(&text));
        }
        for (file, text) in &texts {
            scene.control.write(file, text);
        }
        scene.control.start().await;
        let envoy = setup.start(scene.control.xds()).await;
        let example = Self { scene, envoy, ports, texts, _tcp: tcp };
        example.until_programmed().await;
        Some(example)
    }

    /// Replaces a text that must be in one of the manifests.
    fn edit(&mut self, from: &str, to: &str) {
        let (file, text) = self.texts.iter_mut().find(|(_, text)| text.contains(from)).expect("the text is there");
        *text = text.replace(from, to);
        self.scene.control.write(file, text);
    }

    /// Waits until no plugin waits for anything on the Envoy.
    async fn until_programmed(&self) {
        wait_until("an end of all that is pending", async || {
            let printed = self.scene.control.ask(&["plugins", "--format", "json"]).await.json();
            let plugins = printed["plugins"].as_array()?;
            let is_settled = |plugin: &Value| plugin["proxies"]["pending"] == 0;
            let is_somewhere = |plugin: &Value| plugin["proxies"]["total"] == 1;
            (plugins.iter().all(is_settled) && plugins.iter().any(is_somewhere)).then_some(())
        })
        .await;
    }

    async fn get(&self) -> Response {
        get(self.ports[0], "/").await.expect("the listener answers")
    }

    /// Waits until the request that reaches the upstream has passed these plugins, in this order.
    async fn until_trail(&self, trail: &str) -> Response {
        self.scene.until(trail, |answer| answer.status == 200 && trail_of_request(answer) == trail).await
    }

    /// Every change of listeners so far.
    async fn listener_updates(&self) -> u64 {
        self.envoy.stat("listener_manager.lds.update_success").await
    }
}

/// All that `examples/run` assembles.
fn put_modules(control: &ControlPlane) {
    for (file, text) in read_folder("examples/modules", "wat") {
        let module = wat::parse_str(&text).expect("tests/it/examples.rs assembles them too");
        control.module(&file.replace(".wat", ".wasm"), &module);
    }
}

fn read_folder(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|it| it == extension));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Only where no other digit or letter touches it.
fn replace_words(text: &str, from: &str, to: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let touches = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        replaced.push_str(before);
        replaced.push_str(if touches { from } else { to });
        rest = after;
    }
    replaced + rest
}

fn trail_of_request(answer: &Response) -> String {
    answer.echo()["headers"]["x-trail"].as_str().unwrap_or_default().replace(',', " ")
}

/// Of the answer: last plugin first.
fn trail_of_response(answer: &Response) -> String {
    let values = answer.headers.get_all("x-trail").iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(" ")
}

/// What comes back first; empty where the other side closes instead, by a reset or not.
async fn exchange(port: u16, sent: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let length = timeout(Duration::from_secs(20), stream.read(&mut answer)).await.expect("an answer or an end");
    String::from_utf8_lossy(&answer[..length.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn plugins_run_on_the_listeners_and_in_the_order_that_the_examples_say() {
    for version in [CHAIN, FILTER] {
        for (name, trails) in [
            ("order", vec!["shop/auth shop/tenant shop/quota shop/count shop/early shop/audit shop/late"]),
            ("scope", vec!["shop/web-only shop/whole-namespace istio-system/all-web istio-system/everywhere"]),
            (
                "match",
                vec![
                    "shop/all shop/either shop/port shop/server",
                    "shop/all shop/server",
                    "shop/all shop/client shop/either",
                    "shop/all shop/client",
                ],
            ),
            ("gateway", vec!["shop/for-edge"]),
        ] {
            let Some(example) = Example::start(name, version).await else { return };
            for (port, trail) in example.ports.into_iter().zip(trails) {
                let answer = until_answer(port, trail, |answer| trail_of_request(answer) == trail).await;
                let back: Vec<_> = trail.split(' ').rev().collect();
                assert_eq!(trail_of_response(&answer), back.join(" "), "{name} on {version}");
            }
        }
    }
}

async fn trap(port: u16, place: &str) -> u16 {
    get_with(port, "/", &[("x-trap", place)]).await.expect("a trap is answered").status
}

async fn until_alive(port: u16) {
    until_answer(port, "x-alive", |answer| answer.header("x-alive") == Some("yes")).await;
}

async fn a_trap_is_answered_as_the_fail_strategy_says(version: &str) {
    let env = "trap.wasm\n  vmConfig: {env: [{name: ROUND, value: '0'}]}\n";
    let in_rounds = |text: &str| text.replace("trap.wasm\n", env);
    let Some(mut example) = Example::start_edited("fail-strategy", version, in_rounds).await else { return };
    let [close, open, reload, _] = example.ports;
    for (round, place) in ["request", "response"].into_iter().enumerate() {
        for port in [close, open, reload] {
            until_alive(port).await;
            assert_eq!(trap(port, place).await, 503, "{place} on {version}");
        }
        let closed = get(close, "/").await.unwrap();
        assert_eq!((closed.status, closed.header("x-alive")), (503, None), "{place} on {version}");
        let open = get(open, "/").await.unwrap();
        assert_eq!((open.status, open.header("x-alive")), (200, None), "{place} on {version}");
        until_alive(reload).await;

        // What the VM is made of changes, so each plugin gets a new one.
        let next = format!("ROUND, value: '{}'", round + 1);
        example.edit(&format!("ROUND, value: '{round}'"), &next);
    }

    // Another strategy alone, for a VM that is alive and stays.
    until_alive(close).await;
    let before = example.scene.until_all("shop/close", "programmed", 1).await;
    example.edit("failStrategy: FAIL_CLOSE", "failStrategy: FAIL_OPEN");
    let is_next =
        |now: &Value| now["runningRevision"] != before["runningRevision"] && now["proxies"]["programmed"] == 1;
    example.scene.until_status("shop/close", "the next revision, programmed", is_next).await;
    until_alive(close).await;
    assert_eq!(trap(close, "request").await, 503, "{version}");
    let opened = get(close, "/").await.unwrap();
    assert_eq!((opened.status, opened.header("x-alive")), (200, None), "{version}");
    for id in ["shop/close", "shop/open", "shop/reload"] {
        example.scene.until_all(id, "programmed", 1).await;
    }
}

#[tokio::test]
async fn a_trap_in_a_chain_is_answered_as_the_fail_strategy_says() {
    a_trap_is_answered_as_the_fail_strategy_says(CHAIN).await;
}

#[tokio::test]
async fn a_trap_in_a_filter_is_answered_as_the_fail_strategy_says() {
    a_trap_is_answered_as_the_fail_strategy_says(FILTER).await;
}

#[tokio::test]
async fn a_trap_while_configuring_leaves_the_stand_in_or_the_revision_before() {
    for version in [CHAIN, FILTER] {
        let configured = |text: &str| text.replace("trap.wasm\n", "trap.wasm\n  pluginConfig: {any: 1}\n");
        let Some(mut example) = Example::start_edited("fail-strategy", version, configured).await else { return };
        let [close, open, reload, _] = example.ports;
        for (port, status) in [(close, 403), (open, 200), (reload, 403)] {
            let answer = until_answer(port, "the stand-in's answer", |answer| answer.status == status).await;
            assert_eq!(answer.header("x-alive"), None);
        }
        for id in ["shop/close", "shop/open", "shop/reload"] {
            let status = example.scene.until_all(id, "rejected", 1).await;
            assert!(status["messages"][0].as_str().unwrap().contains(id), "{status}");
        }

        // Without its configuration it runs; with it again, it goes on running without.
        example.edit("  pluginConfig: {any: 1}\n", "");
        for port in [close, open, reload] {
            until_alive(port).await;
        }
        for id in ["shop/close", "shop/open", "shop/reload"] {
            example.scene.until_all(id, "programmed", 1).await;
        }
        example.edit("trap.wasm\n", "trap.wasm\n  pluginConfig: {any: 2}\n");
        for (id, port) in [("shop/close", close), ("shop/open", open), ("shop/reload", reload)] {
            example.scene.until_all(id, "rejected", 1).await;
            until_alive(port).await;
        }
    }
}

#[tokio::test]
async fn environment_variables_are_inline_or_those_of_envoy() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("env", version).await else { return };
        let home = std::env::var("HOME").unwrap();
        let env = |answer: Response| {
            let mut variables: Vec<_> =
                answer.header("x-env").unwrap_or_default().split_terminator(';').map(str::to_owned).collect();
            variables.sort();
            variables
        };
        let answer = example.scene.until("x-env", |answer| answer.header("x-env").is_some()).await;
        assert_eq!(env(answer), ["COLOR=red".to_owned(), format!("HOME={home}")], "{version}");

        // Only a VM of its own sees another environment.
        example.edit("value: red", "value: blue");
        let is_blue = |answer: &Response| answer.header("x-env").is_some_and(|env| env.contains("COLOR=blue;"));
        let answer = example.scene.until("another environment", is_blue).await;
        assert_eq!(env(answer), ["COLOR=blue".to_owned(), format!("HOME={home}")], "{version}");
    }
}

#[tokio::test]
async fn a_network_plugin_stands_on_tcp_and_in_front_of_http() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("network", version).await else { return };
        let [http, tcp, ..] = example.ports;
        let request = |method: &str| format!("{method} / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        let answer = example.until_trail("shop/trail").await;
        assert_eq!(trail_of_response(&answer), "shop/trail");
        assert_eq!(exchange(http, &request("DELETE")).await, "", "{version}");
        assert!(exchange(http, &request("PUT")).await.starts_with("HTTP/1.1 200"), "{version}");

        let mut held = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp)).await.unwrap();
        held.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        held.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
        assert_eq!(exchange(tcp, "QUIT").await, "", "{version}");

        // An edit is ECDS alone: the connection that is open stays.
        let before = example.listener_updates().await;
        example.edit("{refuse: QUIT}", "{refuse: HALT}");
        wait_until("the other word", async || exchange(tcp, "HALT").await.is_empty().then_some(())).await;
        held.write_all(b"QUIT?").await.unwrap();
        held.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"QUIT?");
        assert_eq!(example.listener_updates().await, before, "{version}");

        // A configuration that the module refuses: the one before goes on.
        example.edit("{refuse: HALT}", "{refuze: HALT}");
        example.scene.until_all("shop/no-quit", "rejected", 1).await;
        assert_eq!(exchange(tcp, "HALT").await, "", "{version}");
        example.scene.until_all("shop/no-delete", "programmed", 1).await;
    }
}

#[tokio::test]
async fn a_script_stands_between_modules_and_comes_and_goes_like_one() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("lua", version).await else { return };
        let with_script = "trafficextension:shop/before lua shop/after";
        let answer = example.until_trail(with_script).await;
        assert_eq!(trail_of_response(&answer), "shop/after lua trafficextension:shop/before");
        for id in ["trafficextension:shop/before", "trafficextension:shop/script", "shop/after"] {
            example.scene.until_all(id, "programmed", 1).await;
        }

        let before = example.listener_updates().await;
        let load = Load::start(example.ports[0], 2);
        example.edit(r#""x-trail", "lua""#, r#""x-trail", "moon""#);
        example.until_trail("trafficextension:shop/before moon shop/after").await;
        // One that does not parse: the one before goes on, and so do its neighbours.
        example.edit("function envoy_on_request(handle)", "function envoy_on_request(");
        example.scene.until_all("trafficextension:shop/script", "rejected", 1).await;
        example.until_trail("trafficextension:shop/before moon shop/after").await;
        example.scene.until_all("shop/after", "programmed", 1).await;
        example.edit("function envoy_on_request(", "function envoy_on_request(handle)");
        example.scene.until_all("trafficextension:shop/script", "programmed", 1).await;
        assert_eq!(example.listener_updates().await, before, "{version}");

        let whole = example.texts["extensions.yaml"].clone();
        let (_script, others) = whole.split_once("---\n").unwrap();
        example.scene.control.write("extensions.yaml", others);
        example.until_trail("trafficextension:shop/before shop/after").await;
        example.scene.control.write("extensions.yaml", &whole);
        example.until_trail("trafficextension:shop/before moon shop/after").await;
        let report = load.stop().await;
        report.assert_no_failure();
        if version == CHAIN {
            report.assert_untouched(2);
            assert_eq!(example.listener_updates().await, before);
        }
    }
}

#[tokio::test]
async fn phases_stand_around_the_jwt_and_rbac_filters_of_a_native_listener() {
    for version in [CHAIN, FILTER] {
        let Some(example) = Example::start("native", version).await else { return };
        let tokens = read_folder("examples/native", "token");
        let ask = async |token: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {}", tokens[token].trim()));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            let answer = get_with(example.ports[0], "/", &headers).await.unwrap();
            (answer.status, trail_of_response(&answer), trail_of_request(&answer))
        };
        let said = |status, back: &str, trail: &str| (status, back.to_owned(), trail.to_owned());
        assert_eq!(ask(None).await, said(401, "shop/before-jwt", ""), "{version}");
        let guest = said(403, "shop/before-rbac shop/before-jwt", "");
        assert_eq!(ask(Some("guest.token")).await, guest, "{version}");
        let admin = said(
            200,
            "shop/before-router shop/before-stats shop/before-rbac shop/before-jwt",
            "shop/before-jwt shop/before-rbac shop/before-stats shop/before-router",
        );
        assert_eq!(ask(Some("admin.token")).await, admin, "{version}");
    }
}

#[tokio::test]
async fn a_plugin_is_disabled_and_enabled_under_load_without_a_change_of_listeners() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("disabled", version).await else { return };
        example.until_trail("shop/switched-on").await;
        let before = example.listener_updates().await;
        let load = Load::start(example.ports[0], 4);
        for _ in 0..5 {
            example.edit("disabled: \"true\"", "disabled: \"false\"");
            example.until_trail("shop/switched-off shop/switched-on").await;
            example.edit("disabled: \"false\"", "disabled: \"true\"");
            example.until_trail("shop/switched-on").await;
        }
        load.stop().await.assert_untouched(4);
        assert_eq!(example.listener_updates().await, before, "{version}");
    }
}

#[tokio::test]
async fn a_module_may_call_what_its_annotation_allows_and_nothing_else() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("capabilities", version).await else { return };
        example.until_trail("shop/trusted").await;
        // What a VM may do is part of it: a new one, on Envoys that would keep the old restriction too.
        example.edit("proxy_get_property\n", "proxy_get_property, proxy_add_header_map_value\n");
        example.until_trail("shop/restricted shop/trusted").await;
        example.edit("proxy_get_property, proxy_add_header_map_value\n", "proxy_get_property\n");
        example.until_trail("").await;
    }
}

#[tokio::test]
async fn a_module_that_stops_at_the_headers_sees_the_body_only_where_its_annotation_says_so() {
    for version in [CHAIN, FILTER] {
        let Some(mut example) = Example::start("headers-stop", version).await else { return };
        let post = "POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
        let answer = exchange(example.ports[0], post).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""x-body":"seen""#), "{version}: {answer}");

        example.edit("iteration: \"true\"", "iteration: \"false\"");
        // Whether a request hangs takes a while to see.
        wait_until("a request that stands still", async || {
            timeout(Duration::from_millis(500), exchange(example.ports[0], post)).await.err()
        })
        .await;
        assert_eq!(example.get().await.status, 200);
    }
}
