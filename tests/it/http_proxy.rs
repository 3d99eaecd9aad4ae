//! Fetching and publishing through the HTTP proxy that the environment names.

use std::ffi::OsStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::control_plane::{Printed, wasmplane_with};
use crate::support::http_proxy::{HttpProxy, LOGIN};
use crate::support::images::layout;
use crate::support::module_server::ModuleServer;
use crate::support::modules;
use crate::support::registry::{ALICE, Guard, registry, tls_registry};
use crate::support::scene::Scene;

/// With these variables in the environment.
async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Printed {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, OsStr::new(*value))).collect();
    let printed = wasmplane_with(&environment, arguments).await;
    // Whatever goes wrong, the proxy's own password is not told.
    assert!(!format!("{printed:?}").contains("proxy-secret"), "{printed:?}");
    printed
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_as_whole_urls_unless_no_proxy_names_the_host() {
    let (proxy, server) = (HttpProxy::start().await, ModuleServer::start().await);
    server.put("/a.wasm", modules::hello());
    let url = server.url("/a.wasm");
    let fetched = run(&[("HTTP_PROXY", &proxy.url())], &["inspect", &url]).await;
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    assert_eq!((proxy.requests(), server.hits("/a.wasm")), (vec![format!("GET {url} HTTP/1.1")], 1));

    for variables in [
        [("HTTP_PROXY", proxy.url().as_str()), ("NO_PROXY", "127.0.0.1")],
        [("http_proxy", proxy.url().as_str()), ("no_proxy", "x.test, 127.0.0.0/8")],
        // A proxy for the other scheme.
        [("HTTPS_PROXY", proxy.url().as_str()), ("NO_PROXY", "x.test")],
    ] {
        let fetched = run(&variables, &["inspect", &url]).await;
        assert_eq!((fetched.code, proxy.requests()), (Some(0), vec![]), "{variables:?} {fetched:?}");
    }
    for variable in ["http_proxy", "ALL_PROXY"] {
        let fetched = run(&[(variable, &proxy.url())], &["inspect", &url]).await;
        assert_eq!((fetched.code, proxy.requests().len()), (Some(0), 1), "{variable} {fetched:?}");
    }
}

#[tokio::test]
async fn a_registry_with_tls_is_pushed_to_and_pulled_from_in_tunnels_and_the_proxy_learns_no_credential() {
    for guard in [Guard::Passwords, Guard::Tokens] {
        let Some(registry) = tls_registry(guard).await else { return };
        let (proxy, folder) = (HttpProxy::start().await, tempfile::tempdir().unwrap());
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, modules::hello()).unwrap();
        std::fs::write(folder.path().join("config.json"), registry.docker_config(ALICE)).unwrap();
        let (file, config) = (file.display().to_string(), folder.path().display().to_string());
        let ca = format!("{}={}", registry.host(), registry.ca_file().display());
        // The token server of the tests speaks plain HTTP: it is asked without this proxy.
        let url = proxy.url();
        let environment = [("HTTPS_PROXY", url.as_str()), ("DOCKER_CONFIG", config.as_str())];
        let reference = registry.reference("alice/a:v1");
        let pushed = run(&environment, &["push", &file, &reference, "--registry-ca", &ca]).await;
        assert_eq!(pushed.code, Some(0), "{pushed:?}");
        let url = format!("oci://{reference}");
        let pulled = run(&environment, &["inspect", &url, "--registry-ca", &ca]).await;
        assert_eq!(pulled.code, Some(0), "{pulled:?}");

        let requests = proxy.requests();
        assert!(requests.len() >= 2, "{requests:?}");
        let tunnel = format!("CONNECT {} HTTP/1.1", registry.host());
        assert!(requests.iter().all(|request| *request == tunnel), "{requests:?}");
        let basic = STANDARD.encode(format!("{}:{}", ALICE.name, ALICE.password));
        for secret in [ALICE.password, &basic, "uthorization", "Bearer", "alice/a"] {
            assert!(!proxy.has_heard(secret), "{guard:?}: the proxy heard {secret}");
        }
    }
}

#[tokio::test]
async fn the_proxys_password_goes_to_the_proxy_and_to_nobody_behind_it() {
    // Where the redirect leads is asked directly. It would let in whoever shows the proxy's login.
    let (proxy, elsewhere) = (HttpProxy::start().await, HttpProxy::start().await);
    let variables = [("HTTP_PROXY", proxy.url()), ("NO_PROXY", "127.0.0.1".to_owned())];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let url = format!("http://moved.test/{}/a.wasm", elsewhere.host());
    let asked = run(&variables, &["inspect", &url, "--module-allow-address", "127.0.0.0/8"]).await;
    assert!(asked.stderr.contains("407 Proxy Authentication Required"), "{asked:?}");
    assert_eq!(proxy.requests(), [format!("GET {url} HTTP/1.1")]);
    assert_eq!(elsewhere.requests(), ["GET /a.wasm HTTP/1.1"]);
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_in_or_is_not_there_is_said_without_its_password() {
    let (proxy, server) = (HttpProxy::start().await, ModuleServer::start().await);
    let guess = proxy.url_as("me:guess", "127.0.0.1");
    let refused = run(&[("HTTP_PROXY", &guess)], &["inspect", &server.url("/a")]).await;
    assert!(refused.stderr.contains("407 Proxy Authentication Required"), "{refused:?}");
    let tunnel = run(&[("HTTPS_PROXY", &guess)], &["inspect", "https://127.0.0.1:1/a"]).await;
    assert!(tunnel.stderr.contains("proxy authorization required"), "{tunnel:?}");
    let gone = format!("http://{LOGIN}@127.0.0.1:1");
    for (variable, url) in [("HTTP_PROXY", "http://127.0.0.1:2/a"), ("HTTPS_PROXY", "https://127.0.0.1:2/a")] {
        let printed = run(&[(variable, &gone)], &["inspect", url]).await;
        assert_eq!(printed.code, Some(2), "{printed:?}");
        assert!(printed.stderr.contains("cannot connect: "), "{printed:?}");
        assert!(printed.stderr.contains("(through the proxy 127.0.0.1:1 of the environment)"), "{printed:?}");
        // Not where it is asked directly.
        let direct = run(&[(variable, &gone), ("NO_PROXY", "127.0.0.1")], &["inspect", url]).await;
        assert!(direct.stderr.contains("cannot connect: ") && !direct.stderr.contains("proxy"), "{direct:?}");
        let junk = run(&[(variable, "http://")], &["inspect", url]).await;
        assert!(junk.stderr.starts_with(&format!("warning  {variable} is no URL such as ")), "{junk:?}");
    }
    assert_eq!(server.hits("/a"), 0);
}

#[tokio::test]
async fn behind_a_proxy_metadata_addresses_are_refused_here_and_names_are_the_proxys_to_judge() {
    let (proxy, server) = (HttpProxy::start().await, ModuleServer::start().await);
    server.put("/a.wasm", modules::hello());
    // A proxy may be anywhere, also where modules may not come from; its own name is resolved here.
    let by_name = proxy.url_as(LOGIN, "localhost");
    let variables = [("HTTP_PROXY", by_name.as_str()), ("HTTPS_PROXY", by_name.as_str())];
    for target in [
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/",
        "https://METADATA.google.internal./",
    ] {
        let printed = run(&variables, &["inspect", target]).await;
        assert_eq!(printed.code, Some(2), "{printed:?}");
        assert!(printed.stderr.contains("is not dialled"), "{target}: {printed:?}");
        assert_eq!(proxy.requests(), Vec::<String>::new(), "{target}");
    }
    // Neither by a redirect, nor with what the operator denies.
    let moved = run(&variables, &["inspect", "http://moved.test/169.254.169.254/latest"]).await;
    assert!(moved.stderr.contains("169.254.169.254 is not dialled"), "{moved:?}");
    assert_eq!(proxy.requests().len(), 1);
    let denied = run(&variables, &["inspect", &server.url("/a.wasm"), "--module-deny-private"]).await;
    assert!(denied.stderr.contains("127.0.0.1 is not dialled: private addresses are denied"), "{denied:?}");
    assert_eq!((proxy.requests(), server.hits("/a.wasm")), (Vec::new(), 0));
    let named = run(&variables, &["inspect", "http://intranet.test/a.wasm", "--module-deny-private"]).await;
    assert!(named.stderr.contains("403 Forbidden"), "{named:?}");
    assert_eq!(proxy.requests(), ["GET http://intranet.test/a.wasm HTTP/1.1"]);
}

#[tokio::test]
async fn the_control_plane_pulls_through_the_proxy_as_well() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let proxy = HttpProxy::start().await;
    layout("compat-oci", &modules::hello()).publish(&registry, "team/a", "v1");
    let mut scene = Scene::new().await;
    scene.control = scene.control.environment("HTTP_PROXY", &proxy.url());
    scene.control.start().await;
    scene.plugin("a", &format!("oci://{}", registry.reference("team/a:v1")), json!({}));
    scene.until_module("default/a").await;
    let requests = proxy.requests();
    let of_registry = format!("GET http://{}/v2/team/a/", registry.host());
    assert!(requests.len() >= 2 && requests.iter().all(|it| it.starts_with(&of_registry)), "{requests:?}");
    assert!(!scene.control.log().contains("proxy-secret"));
}
