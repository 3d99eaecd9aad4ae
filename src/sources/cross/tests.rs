//! Whole files in, warnings out.

use std::fs;

use super::cross_check;
use crate::sources::load;

/// Each warning, without what is the same in all.
fn told(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, text).unwrap();
    let loaded = load(&[file]);
    assert_eq!(loaded.faults, []);
    let shown = cross_check(&loaded, "istio-system").into_iter();
    shown.map(|found| format!("{} {} {}: {}", found.line, found.resource, found.field, found.reason)).collect()
}

/// A template on one line.
fn template(id: &str, spec: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "--- {{apiVersion: wasmplane.io/v1alpha1, kind: ProxyTemplate, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n"
    )
}

/// A plugin on one line.
fn plugin(id: &str, spec: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "--- {{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{url: r/a, {spec}}}}}\n"
    )
}

const GATEWAY: &str = "{listeners: [{name: gw, direction: GATEWAY, port: 80, protocol: HTTP}]}";

#[test]
fn a_plugin_that_fits_no_listener_it_meets_is_told_of_by_the_field_that_is_why() {
    let text = template("shop/web", GATEWAY)
        + &plugin("shop/a", "match: [{mode: SERVER}]")
        + &plugin("shop/b", "match: [{ports: [{number: 80}, {number: 8080}]}]")
        + &plugin("istio-system/c", "match: [{mode: CLIENT, ports: [{number: 81}]}]");
    assert_eq!(
        told(&text),
        [
            "2 WasmPlugin shop/a spec.match: fits no listener of the ProxyTemplates here: gw (GATEWAY 80)",
            "2 WasmPlugin shop/a spec.match[0].mode: SERVER fits no listener of the ProxyTemplates here: no listener is INBOUND: gw (GATEWAY 80)",
            "3 WasmPlugin shop/b spec.match[0].ports[1].number: no listener of the ProxyTemplates here has port 8080: gw (GATEWAY 80)",
            "4 WasmPlugin istio-system/c spec.match: fits no listener of the ProxyTemplates here: gw (GATEWAY 80)",
            "4 WasmPlugin istio-system/c spec.match[0].ports[0].number: no listener of the ProxyTemplates here has port 81: gw (GATEWAY 80)",
        ]
    );
}

#[test]
fn a_plugin_of_a_type_that_no_listener_carries_is_told_of() {
    let text = template("shop/web", "{listeners: [{name: db, direction: INBOUND, port: 1, protocol: TCP}]}")
        + &plugin("shop/a", "type: HTTP")
        + &plugin("shop/b", "type: NETWORK");
    assert_eq!(
        told(&text),
        ["2 WasmPlugin shop/a spec: has no effect on the ProxyTemplates here: no listener speaks HTTP: db (INBOUND 1)"]
    );
}

#[test]
fn of_a_plugin_that_meets_no_template_nothing_is_said() {
    let nowhere = "match: [{mode: SERVER}]";
    let labelled =
        "{selector: {matchLabels: {app: web}}, listeners: [{name: gw, direction: GATEWAY, port: 80, protocol: HTTP}]}";
    let reference = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: x}]";
    let text = template("shop/web", labelled)
        + &plugin("other/a", nowhere)
        + &plugin("shop/b", &format!("selector: {{matchLabels: {{app: api}}}}, {nowhere}"))
        + &plugin("istio-system/c", &format!("{reference}, {nowhere}"));
    assert_eq!(told(&text), Vec::<String>::new());
}

/// A Secret on one line.
fn secret(id: &str, rest: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!("--- {{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, {rest}}}\n")
}

#[test]
fn a_pull_secret_that_is_not_among_the_manifests_is_told_of() {
    let extension = "--- {apiVersion: extensions.istio.io/v1alpha1, kind: TrafficExtension, metadata: {name: t, namespace: shop},\n\
                     spec: {wasm: {url: r/a,\n imagePullSecret: gone}}}\n";
    let config = "type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: '{\"auths\": {}}'}";
    let text = plugin("shop/a", "imagePullSecret: gone")
        + extension
        + &plugin("shop/b", "imagePullSecret: pull")
        + &plugin("other/c", "imagePullSecret: pull")
        + &plugin("shop/d", "imagePullSecret: opaque")
        + &plugin("shop/e", "priority: 1")
        + &secret("shop/pull", config)
        + &secret("shop/opaque", "stringData: {a: b}");
    let pulled = "the image is not pulled without it";
    assert_eq!(
        told(&text),
        [
            format!("1 WasmPlugin shop/a spec.imagePullSecret: no manifest here has the Secret \"gone\" in namespace shop: {pulled}"),
            format!(
                "4 TrafficExtension shop/t spec.wasm.imagePullSecret: no manifest here has the Secret \"gone\" in namespace shop: {pulled}"
            ),
            format!(
                "6 WasmPlugin other/c spec.imagePullSecret: no manifest here has the Secret \"pull\" in namespace other (there is one in shop, which is not looked at): {pulled}"
            ),
            "7 WasmPlugin shop/d spec.imagePullSecret: the Secret \"opaque\" is of type Opaque, and images need kubernetes.io/dockerconfigjson".to_owned(),
        ]
    );
}

const ROUTES: &str = r#"
apiVersion: wasmplane.io/v1alpha1
kind: ProxyTemplate
metadata: {name: web, namespace: shop}
spec:
  listeners:
  - {name: in, direction: INBOUND, port: 8080, protocol: HTTP, forwardTo: {host: 127.0.0.1, port: 1}}
  envoy:
    listeners:
    - name: l
      address: {socketAddress: {address: 0.0.0.0, portValue: 80}}
      filterChains:
      - filters:
        - name: hcm
          typedConfig:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            statPrefix: x
            rds: {routeConfigName: gone, configSource: {ads: {}}}
            httpFilters:
            - name: router
              typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
    routes:
    - name: main
      virtualHosts:
      - name: x
        domains: ["*"]
        routes:
        - {match: {prefix: /a}, route: {cluster: wasmplane/in}}
        - {match: {prefix: /b}, route: {cluster: elsewhere}}
        - match: {prefix: /}
          route: {cluster: nowhere}
    clusters:
    - {name: pods, type: EDS, edsClusterConfig: {serviceName: pods.shop, edsConfig: {ads: {}}}}
    - {name: files, type: EDS, edsClusterConfig: {edsConfig: {pathConfigSource: {path: /eds}}}}
"#;

#[test]
fn references_that_lead_nowhere_are_told_of_where_they_stand() {
    let cluster = "{envoy: {clusters: [{name: elsewhere}]}}";
    assert_eq!(
        told(&(ROUTES.to_owned() + &template("istio-system/all", cluster))),
        [
            "18 ProxyTemplate shop/web spec.envoy.listeners[0].filter_chains[0].filters[0].typed_config.rds.route_config_name: no ProxyTemplate here has the route \"gone\": the proxy waits for it",
            "31 ProxyTemplate shop/web spec.envoy.routes[0].virtual_hosts[0].routes[2].route.cluster: no ProxyTemplate here has the cluster \"nowhere\": traffic for it fails, unless it is in the proxies' bootstrap",
            "33 ProxyTemplate shop/web spec.envoy.clusters[0].eds_cluster_config: no ProxyTemplate here has the endpoint assignment \"pods.shop\": the proxy waits for it",
        ]
    );
}

#[test]
fn templates_that_clash_on_a_proxy_are_told_of_at_the_one_that_loses() {
    let cluster = |timeout: &str| format!("{{envoy: {{clusters: [{{name: c, connect_timeout: {timeout}}}]}}}}");
    let listener =
        |name: &str| format!("{{listeners: [{{name: {name}, direction: INBOUND, port: 1, protocol: TCP}}]}}");
    let text = template("istio-system/a", &cluster("1s"))
        + &template("shop/b", &cluster("2s"))
        + &template("shop/same", &cluster("2s"))
        + &template("shop/l", &listener("l"))
        + &template("shop/m", &listener("m"))
        + &template("other/x", &listener("o"));
    let lost = "which wins on proxies that get both";
    assert_eq!(
        told(&text),
        [
            format!("1 ProxyTemplate istio-system/a spec.envoy.clusters[0]: cluster \"c\" is in ProxyTemplate shop/b too, {lost}"),
            format!("1 ProxyTemplate istio-system/a spec.envoy.clusters[0]: cluster \"c\" is in ProxyTemplate shop/same too, {lost}"),
            "5 ProxyTemplate shop/m spec.listeners[0]: listener \"l\" of ProxyTemplate shop/l has its address 0.0.0.0:1: proxies that get both are served that one only".to_owned(),
        ]
    );
    let apart = |label: &str| {
        format!(
            "{{selector: {{matchLabels: {{app: '{label}'}}}}, envoy: {{clusters: [{{name: c, connect_timeout: {label}s}}]}}}}"
        )
    };
    assert_eq!(told(&(template("shop/a", &apart("1")) + &template("shop/b", &apart("2")))).len(), 0);
}

#[test]
fn references_through_aggregates_scopes_and_datagrams_are_followed() {
    let text = r#"
apiVersion: wasmplane.io/v1alpha1
kind: ProxyTemplate
metadata: {name: web, namespace: shop}
spec:
  envoy:
    listeners:
    - name: http
      address: {socketAddress: {address: 0.0.0.0, portValue: 80}}
      filterChains:
      - filters:
        - name: hcm
          typedConfig:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            statPrefix: x
            scopedRoutes:
              name: s
              scopeKeyBuilder: {fragments: [{headerValueExtractor: {name: host}}]}
              rdsConfigSource: {ads: {}}
              scopedRouteConfigurationsList:
                scopedRouteConfigurations:
                - {name: a, routeConfigurationName: main, key: {fragments: [{stringKey: a}]}}
                - {name: b, routeConfigurationName: gone, key: {fragments: [{stringKey: b}]}}
            httpFilters:
            - name: router
              typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
    - name: udp
      address: {socketAddress: {address: 0.0.0.0, portValue: 53, protocol: UDP}}
      udpListenerConfig: {}
      listenerFilters:
      - name: proxy
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig
          statPrefix: u
          cluster: resolver
    routes:
    - {name: main}
    clusters:
    - {name: one}
    - name: all
      lbPolicy: CLUSTER_PROVIDED
      clusterType:
        name: envoy.clusters.aggregate
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig
          clusters: [one, two]
"#;
    let told: Vec<_> = told(text).into_iter().map(|told| told.split(':').take(2).collect::<String>()).collect();
    let listener = "ProxyTemplate shop/web spec.envoy.listeners";
    assert_eq!(
        told,
        [
            format!(
                "23 {listener}[0].filter_chains[0].filters[0].typed_config.scoped_routes.scoped_route_configurations_list.scoped_route_configurations[1].route_configuration_name no ProxyTemplate here has the route \"gone\""
            ),
            format!(
                "35 {listener}[1].listener_filters[0].typed_config.cluster no ProxyTemplate here has the cluster \"resolver\""
            ),
            "46 ProxyTemplate shop/web spec.envoy.clusters[1].cluster_type.typed_config.clusters[1] no ProxyTemplate here has the cluster \"two\"".to_owned(),
        ]
    );
}
