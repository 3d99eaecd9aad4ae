//! Listeners in Envoy's own words: several filter chains, TLS, RDS, EDS; TCP; and services outside ADS.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::scene::{
    KINDS, Scene, assignment, listener, manager, native_chain, native_cluster, native_listener, template, template_of,
};
use crate::support::upstream::TcpEcho;
use crate::support::{free_port, modules, wait_until};

/// Two chains behind TLS, one of them with RDS, and one for everything else.
fn edge(port: u16, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Value {
    let of = |text: String| json!({"inline_string": text});
    let tls = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [{
            "certificate_chain": of(certificate.cert.pem()), "private_key": of(certificate.signing_key.serialize_pem()),
        }]},
    }});
    let rds =
        json!({"rds": {"route_config_name": "routes", "config_source": {"ads": {}, "resource_api_version": "V3"}}});
    let chains = [
        json!({
            "name": "rds", "filter_chain_match": {"server_names": ["rds.test"]}, "transport_socket": tls.clone(),
            "filters": [manager("rds", rds)],
        }),
        json!({
            "name": "inline", "filter_chain_match": {"server_names": ["inline.test"]}, "transport_socket": tls,
            "filters": native_chain("inline", "direct")["filters"],
        }),
    ];
    let mut listener = native_listener("edge", port, &chains);
    listener["listener_filters"] = json!([{"name": "sni", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}]);
    listener["default_filter_chain"] = native_chain("default", "direct");
    listener
}

/// What an answer over TLS says, head and body.
async fn get_over_tls(port: u16, name: &'static str, root: &rcgen::Certificate) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let get = move || -> std::io::Result<String> {
        use std::io::{Read as _, Write as _};
        let mut socket = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let mut connection =
            rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).map_err(std::io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        // Envoy may close without a TLS goodbye: what came is what counts.
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::task::spawn_blocking(get).await.unwrap()
}

async fn every_manager_is_treated(version: &str, protocol: Protocol) {
    let Some(setup) = envoy(version).await else { return };
    let scene = Scene::start().await;
    let certificate = rcgen::generate_simple_self_signed(["rds.test".to_owned(), "inline.test".to_owned()]).unwrap();
    let eds = json!({
        "name": "by-eds", "type": "EDS", "connect_timeout": "5s",
        "eds_cluster_config": {"service_name": "endpoints", "eds_config": {"ads": {}, "resource_api_version": "V3"}},
    });
    let routes = |answer: Value| {
        json!([{"name": "routes", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": answer}]}]}])
    };
    let envoy = |route: Value| {
        json!({
            "listeners": [edge(scene.port, &certificate)], "routes": routes(route),
            "clusters": [native_cluster("direct", scene.upstream.port()), eds],
            "endpoints": [assignment("endpoints", scene.upstream.port())],
        })
    };
    scene.control.write("template.yaml", &template_of("web", json!({"envoy": envoy(json!({"cluster": "by-eds"}))})));
    let running = setup.protocol(protocol).start(scene.control.xds()).await;
    let [a, b] = ["a", "b"].map(|letter| scene.control.module(&format!("{letter}.wasm"), &modules::order(letter)));
    scene.plugin("last", &b, json!({"phase": "STATS"}));
    scene.plugin("first", &a, json!({"phase": "AUTHN", "match": [{"ports": [{"number": scene.port}]}]}));

    scene.until("both plugins in the default chain", |answer| answer.order() == "ab").await;
    for name in ["rds.test", "inline.test"] {
        wait_until(&format!("both plugins in the chain of {name}"), async || {
            let answer = get_over_tls(scene.port, name, &certificate.cert).await.ok()?;
            (answer.starts_with("HTTP/1.1 200") && answer.contains(r#""x-order":"a,b""#)).then_some(())
        })
        .await;
    }
    for id in ["default/first", "default/last"] {
        scene.until_all(id, "programmed", 1).await;
    }

    // A route alone changes: the listener stays.
    let modified = running.stat("listener_manager.listener_modified").await;
    let rewritten = json!({"cluster": "by-eds", "prefix_rewrite": "/rewritten"});
    scene.control.write("template.yaml", &template_of("web", json!({"envoy": envoy(rewritten)})));
    wait_until("the new route", async || {
        let answer = get_over_tls(scene.port, "rds.test", &certificate.cert).await.ok()?;
        answer.contains("/rewritten").then_some(())
    })
    .await;
    assert_eq!(running.stat("listener_manager.listener_modified").await, modified);
    assert_eq!(running.stat("listener_manager.lds.update_rejected").await, 0);
}

#[tokio::test]
async fn every_manager_of_a_native_listener_gets_the_plugins() {
    for (version, protocol) in KINDS {
        every_manager_is_treated(version, protocol).await;
    }
}

#[tokio::test]
async fn a_tcp_listener_forwards_and_one_without_upstream_closes() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let (scene, echo) = (Scene::start().await, TcpEcho::start().await);
    let closed = free_port();
    let mut closing = listener("closing", closed, 1);
    closing["protocol"] = "TCP".into();
    closing.as_object_mut().unwrap().remove("forwardTo");
    let mut forwarding = listener("forwarding", scene.port, echo.port());
    forwarding["protocol"] = "TCP".into();
    scene.control.write("template.yaml", &template("web", &[forwarding, closing]));
    let _running = setup.start(scene.control.xds()).await;

    let talk = async |port: u16| -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"ping").await?;
        stream.shutdown().await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        Ok(back)
    };
    wait_until("an echo", async || (talk(scene.port).await.ok()? == b"ping").then_some(())).await;
    wait_until("a closed connection", async || talk(closed).await.map_or(true, |back| back.is_empty()).then_some(()))
        .await;
}

/// The bootstrap of an Envoy that asks each service by itself.
fn separate_services(xds: std::net::SocketAddr) -> String {
    let source = json!({"resource_api_version": "V3", "api_config_source": {
        "api_type": "DELTA_GRPC", "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }});
    let mut cluster = native_cluster("xds", xds.port());
    cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    json!({
        "node": {"id": "separate", "cluster": "test", "metadata": {"NAMESPACE": "default"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"lds_config": source, "cds_config": source},
        "static_resources": {"clusters": [cluster]},
    })
    .to_string()
}

#[tokio::test]
async fn an_envoy_outside_ads_gets_its_listeners_and_is_told_to_use_ads_for_plugins() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let scene = Scene::start().await;
        let running = setup.start_with(&separate_services(scene.control.xds())).await;
        scene.until("an answer", |answer| answer.status == 200).await;
        let proxies = scene.until_proxies(1).await;
        let streams: Vec<_> = proxies[0]["streams"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(streams.len(), 2, "{proxies:?}");

        let module = scene.control.module("hello.wasm", &modules::hello());
        scene.plugin("hello", &module, json!({}));
        // Envoy shows a status as it came, percent-encoded.
        wait_until("advice in Envoy's log", async || running.log().contains("use%20ADS").then_some(())).await;
        let warned = || scene.control.logged("listeners not served");
        let warning = wait_until("advice in our log", async || warned().first().cloned()).await;
        assert!(warning["error"].as_str().unwrap().contains("use ADS"), "{warning}");
        // What it has goes on, and its plugin is not said to run.
        assert_eq!(scene.get().await.unwrap().status, 200);
        let status = scene.status("default/hello").await;
        assert_eq!(status["proxies"]["programmed"], 0, "{status}");
        scene.remove("hello");
        scene.until_status("default/hello", "gone", Value::is_null).await;
        scene.until("an answer", |answer| answer.status == 200).await;
    }
}
