//! A control plane, an upstream and the manifests of one listener between them: what most tests begin with.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;

use super::control_plane::ControlPlane;
use super::envoy::{CHAIN, Envoy, EnvoySetup, FILTER, envoy};
use super::http::{Response, get};
use super::upstream::Upstream;
use super::{free_port, wait_until};

/// A control plane with a ProxyTemplate for every proxy of namespace `default`.
pub struct Scene {
    pub control: ControlPlane,
    pub upstream: Upstream,
    /// Of the HTTP listener `in`, which forwards to the upstream.
    pub port: u16,
}

/// Both modes that run plugins, both protocols.
pub const KINDS: [(&str, Protocol); 4] =
    [(CHAIN, Protocol::Delta), (CHAIN, Protocol::Sotw), (FILTER, Protocol::Delta), (FILTER, Protocol::Sotw)];

impl Scene {
    pub async fn start() -> Self {
        let mut scene = Self::new().await;
        scene.control.start().await;
        scene
    }

    /// Without what modules by digest add to a proxy's listeners and clusters.
    pub async fn inline() -> Self {
        let mut scene = Self::new().await;
        scene.control = scene.control.flags(&["--module-delivery", "inline"]);
        scene.control.start().await;
        scene
    }

    /// Before the control plane runs, so that the test can write other manifests.
    pub async fn new() -> Self {
        let scene = Self { control: ControlPlane::new(), upstream: Upstream::start().await, port: free_port() };
        scene.control.write("template.yaml", &template("web", &[listener("in", scene.port, scene.upstream.port())]));
        scene
    }

    /// A scene with an Envoy that answers. `None` where that Envoy is not to be had.
    pub async fn with_envoy(version: &str, protocol: Protocol) -> Option<(Self, Envoy)> {
        let setup = envoy(version).await?.protocol(protocol);
        let scene = Self::start().await;
        let running = scene.envoy(setup).await;
        Some((scene, running))
    }

    /// Starts an Envoy and waits until its listener answers.
    pub async fn envoy(&self, setup: EnvoySetup) -> Envoy {
        let running = setup.start(self.control.xds()).await;
        self.until("the listener's first answer", |_| true).await;
        running
    }

    /// Writes, or replaces, the WasmPlugin of that name: its `url` and the rest of its `spec`.
    pub fn plugin(&self, name: &str, url: &str, spec: Value) {
        self.control.write(&format!("{name}.yaml"), &plugin(name, url, spec));
    }

    /// Writes, or replaces, the TrafficExtension `script` with this Lua code.
    pub fn script(&self, code: &str) {
        let manifest = json!({
            "apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension",
            "metadata": {"name": "script", "namespace": "default"},
            "spec": {"phase": "AUTHN", "lua": {"inlineCode": code}},
        });
        self.control.write("script.yaml", &manifest.to_string());
    }

    /// Deletes the WasmPlugin that [`Scene::plugin`] wrote.
    pub fn remove(&self, name: &str) {
        self.control.delete(&format!("{name}.yaml"));
    }

    pub async fn get(&self) -> anyhow::Result<Response> {
        get(self.port, "/").await
    }

    /// Asks until the answer is as it should be.
    pub async fn until(&self, what: &str, is_right: impl Fn(&Response) -> bool) -> Response {
        until_answer(self.port, what, is_right).await
    }

    /// Asks until the response header has this value.
    pub async fn until_header(&self, name: &str, value: Option<&str>) -> Response {
        self.until(&format!("{name}: {value:?}"), |answer| answer.header(name) == value).await
    }

    /// What `plugins` says of a plugin; null if it does not know it.
    pub async fn status(&self, id: &str) -> Value {
        let printed = self.control.ask(&["plugins", "--format", "json"]).await.json();
        let mut plugins = printed["plugins"].as_array().into_iter().flatten();
        plugins.find(|plugin| plugin["id"] == id).cloned().unwrap_or_default()
    }

    /// Waits until `plugins` counts so many proxies in this state, and none in another.
    pub async fn until_all(&self, id: &str, state: &str, proxies: u64) -> Value {
        wait_until(&format!("{id} {state} on {proxies} of {proxies} proxies"), async || {
            let status = self.status(id).await;
            let counts = &status["proxies"];
            (counts[state] == proxies && counts["total"] == proxies).then_some(status)
        })
        .await
    }

    /// Waits until `plugins` shows the plugin in such a way.
    pub async fn until_status(&self, id: &str, what: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("{id}: {what}"), async || Some(self.status(id).await).filter(&is_right)).await
    }

    /// Waits until the plugin has a module that may be sent.
    pub async fn until_module(&self, id: &str) -> Value {
        let has_module = |status: &Value| status["moduleDigest"].as_str().is_some_and(|digest| !digest.is_empty());
        self.until_status(id, "a module", has_module).await
    }

    /// What `proxies` shows.
    pub async fn proxies(&self) -> Vec<Value> {
        let printed = self.control.ask(&["proxies", "--format", "json"]).await.json();
        printed["proxies"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until so many proxies are connected.
    pub async fn until_proxies(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} proxies"), async || Some(self.proxies().await).filter(|it| it.len() == count))
            .await
    }

    /// A metric of the control plane, by its whole name with labels; 0 where it is not there.
    pub async fn metric(&self, series: &str) -> u64 {
        let page = self.control.admin_get("/metrics").await.expect("the admin port answers").body;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("counts are whole numbers"))
    }

    /// Discovery responses since the control plane's start, by type.
    pub async fn responses(&self) -> BTreeMap<&'static str, u64> {
        let mut responses = BTreeMap::new();
        for kind in ["cds", "ecds", "eds", "lds", "rds"] {
            let sent = self.metric(&format!("wasmplane_xds_responses_total{{type=\"{kind}\"}}")).await;
            if sent > 0 {
                responses.insert(kind, sent);
            }
        }
        responses
    }
}

/// Asks a port of loopback until the answer is as it should be.
pub async fn until_answer(port: u16, what: &str, is_right: impl Fn(&Response) -> bool) -> Response {
    wait_until(what, async || get(port, "/").await.ok().filter(|answer| is_right(answer))).await
}

/// A WasmPlugin of namespace `default`. JSON is YAML.
pub fn plugin(name: &str, url: &str, mut spec: Value) -> String {
    spec["url"] = url.into();
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
    .to_string()
}

/// A ProxyTemplate of namespace `default` in the short form, for every proxy there.
pub fn template(name: &str, listeners: &[Value]) -> String {
    template_of(name, json!({"listeners": listeners}))
}

/// A ProxyTemplate of namespace `default`.
pub fn template_of(name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "wasmplane.io/v1alpha1", "kind": "ProxyTemplate",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
    .to_string()
}

/// An inbound HTTP listener on loopback.
pub fn listener(name: &str, port: u16, upstream: u16) -> Value {
    json!({
        "name": name, "direction": "INBOUND", "bind": "127.0.0.1", "port": port, "protocol": "HTTP",
        "forwardTo": {"host": "127.0.0.1", "port": upstream},
    })
}

/// A ProxyTemplate of namespace `default` in Envoy's own words, for every proxy there.
pub fn native(name: &str, listeners: Value, clusters: Value) -> String {
    template_of(name, json!({"envoy": {"listeners": listeners, "clusters": clusters}}))
}

/// Envoy's own listener on loopback, inbound.
pub fn native_listener(name: &str, port: u16, chains: &[Value]) -> Value {
    json!({
        "name": name, "traffic_direction": "INBOUND", "filter_chains": chains,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
    })
}

/// A filter chain of one HTTP connection manager, whose inline route leads to `cluster`. In front of the router stand
/// anchors of all three kinds, which let everything pass.
pub fn native_chain(name: &str, cluster: &str) -> Value {
    let routes = json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]});
    json!({"name": name, "filters": [manager(name, json!({"route_config": routes}))]})
}

/// An HTTP connection manager with anchors and with these routes.
pub fn manager(stat_prefix: &str, mut config: Value) -> Value {
    let filter = |name: &str, of: &str| {
        let type_url = format!("type.googleapis.com/envoy.extensions.filters.http.{of}");
        json!({"name": name, "typed_config": {"@type": type_url}})
    };
    config["@type"] =
        json!("type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
    config["stat_prefix"] = stat_prefix.into();
    config["http_filters"] = json!([
        filter("authentication", "jwt_authn.v3.JwtAuthentication"),
        filter("authorization", "rbac.v3.RBAC"),
        filter("stats", "grpc_stats.v3.FilterConfig"),
        filter("router", "router.v3.Router"),
    ]);
    json!({"name": "manager", "typed_config": config})
}

/// Envoy's own cluster of one address of loopback.
pub fn native_cluster(name: &str, port: u16) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment(name, port)})
}

/// The endpoints of [`native_cluster`], or of one that gets them by EDS.
pub fn assignment(name: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}
