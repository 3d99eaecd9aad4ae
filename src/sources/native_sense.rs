//! What no single field of a native resource shows, and what a proxy would refuse or wait for in vain all the same.
//!
//! Pure. Comes in: an encoded resource. Goes out: its faults, each with its path within the resource.

use crate::model::PluginId;
use crate::protobuf::{Part, walk};

const HTTP_CONNECTION_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// Filters that may end a chain in the router's place, as far as their types tell.
const OTHER_ENDS: [&str; 3] = ["dynamic_modules", "mcp_router", "file_server"];

/// All faults of the resource.
pub(super) fn faults(message_name: &str, message: &[u8]) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    walk(message_name, message, &mut |part| match part.type_name().as_str() {
        HTTP_CONNECTION_MANAGER => faults.extend(unended(part, "http_filters")),
        name if name.ends_with(".HttpConnectionManager.UpgradeConfig") => {
            // No filters of its own: those of the manager.
            let is_its_own = part.ask_last("filters", |_| ()).is_some();
            faults.extend(is_its_own.then(|| unended(part, "filters")).flatten());
        }
        name => faults.extend(unserved(name, part)),
    });
    faults
}

/// What is asked for over ADS and not served there: the message, the field with its source, and what to do instead.
const UNSERVED: [(&str, &str, &str); 3] = [
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        "sds_config",
        "secrets are not served over ADS: name a file (path_config_source) or another server, or write the certificate itself",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRds",
        "scoped_rds_config_source",
        "scoped routes are not served over ADS: write scoped_route_configurations_list",
    ),
    (
        "envoy.config.route.v3.Vhds",
        "config_source",
        "virtual hosts are not served over ADS by themselves: write them into the route",
    ),
];

/// Filters that may be discovered.
const FILTERS: [&str; 3] = [
    "envoy.config.listener.v3.ListenerFilter",
    "envoy.config.listener.v3.Filter",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
];

/// What a proxy would wait for in vain.
fn unserved(type_name: &str, part: &Part<'_>) -> Option<(String, String)> {
    let is_by_ads = |part: &Part<'_>, field: &str| part.ask(field, |source| source.has("ads")) == Some(true);
    if let Some((_, field, reason)) = UNSERVED.iter().find(|(known, ..)| *known == type_name) {
        return is_by_ads(part, field).then(|| (part.path_of(field), (*reason).to_owned()));
    }
    let name = part.text("name").filter(|_| FILTERS.contains(&type_name))?;
    let source = part.ask("config_discovery", |it| is_by_ads(it, "config_source").then(|| it.path_of("config_source")));
    let path = source.flatten().filter(|_| PluginId::from_extension_name(&name).is_none())?;
    Some((
        path,
        format!(
            "no filter of the name {name:?} is served over ADS: write its typed_config, or name a plugin's resource"
        ),
    ))
}

/// A chain of HTTP filters that does not end with a router.
fn unended(part: &Part<'_>, list: &str) -> Option<(String, String)> {
    let found = match part.ask_last(list, is_end) {
        Some(Some(true) | None) => return None,
        Some(Some(false)) => "its last filter is another one",
        None => "it has no filters",
    };
    Some((part.path_of(list), format!("must end with a router ({ROUTER}), and {found}")))
}

/// Whether the filter may end a chain; `None` where that cannot be told.
fn is_end(filter: &Part<'_>) -> Option<bool> {
    // What is discovered, or of a type that is not known, is the user's own affair.
    let name = filter.ask("typed_config", |config| match config.type_name().as_str() {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => config.text("type_url").unwrap_or_default(),
        name => name.to_owned(),
    })?;
    Some(name.ends_with(ROUTER) || OTHER_ENDS.iter().any(|end| name.contains(end)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protobuf::from_json;

    const LISTENER: &str = "envoy.config.listener.v3.Listener";

    fn filter(type_name: &str) -> Value {
        json!({"name": "f", "typed_config": {"@type": format!("type.googleapis.com/{type_name}")}})
    }

    /// What is wrong with a manager that has these fields, by the end of its path.
    fn told(fields: &Value) -> Vec<String> {
        let mut manager = json!({"@type": format!("type.googleapis.com/{HTTP_CONNECTION_MANAGER}")});
        manager.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let listener = json!({"filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]});
        let faults = faults(LISTENER, &from_json(LISTENER, &listener).unwrap());
        let end = |path: &str| path.strip_prefix("filter_chains[0].filters[0].typed_config.").unwrap().to_owned();
        faults.into_iter().map(|(path, reason)| format!("{}: {reason}", end(&path))).collect()
    }

    #[test]
    fn a_chain_of_http_filters_ends_with_a_router() {
        let (router, cors) = (filter(ROUTER), filter("envoy.extensions.filters.http.cors.v3.Cors"));
        let wrapped = json!({"name": "r", "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": format!("type.googleapis.com/{ROUTER}")}});
        let discovered =
            json!({"name": "r", "config_discovery": {"config_source": {"path_config_source": {"path": "/r"}}}});
        let wrong = |path: &str, why: &str| vec![format!("{path}: must end with a router ({ROUTER}), and {why}")];
        for end in [&router, &wrapped, &discovered] {
            assert_eq!(told(&json!({"http_filters": [cors, end]})), Vec::<String>::new());
        }
        assert_eq!(told(&json!({"http_filters": []})), wrong("http_filters", "it has no filters"));
        assert_eq!(
            told(&json!({"http_filters": [router, cors]})),
            wrong("http_filters", "its last filter is another one")
        );
        let upgrades = json!([{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT", "filters": [cors]}]);
        assert_eq!(
            told(&json!({"http_filters": [router], "upgrade_configs": upgrades})),
            wrong("upgrade_configs[1].filters", "its last filter is another one")
        );
    }

    #[test]
    fn secrets_by_ads_are_refused_and_by_file_are_not() {
        let listener = |source: Value| {
            let secrets = json!([{"name": "cert", "sds_config": source}]);
            let tls = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                             "common_tls_context": {"tls_certificate_sds_secret_configs": secrets}});
            let chain = json!({"transport_socket": {"name": "tls", "typed_config": tls}});
            faults(LISTENER, &from_json(LISTENER, &json!({"filter_chains": [chain]})).unwrap())
        };
        let [(path, reason)] = &listener(json!({"ads": {}}))[..] else { panic!() };
        assert!(path.ends_with("tls_certificate_sds_secret_configs[0].sds_config"), "{path}");
        assert!(reason.starts_with("secrets are not served over ADS"));
        assert_eq!(listener(json!({"path_config_source": {"path": "/etc/sds.yaml"}})), []);
    }

    #[test]
    fn what_is_not_served_over_ads_is_refused_where_a_proxy_would_wait_for_it() {
        let router = filter(ROUTER);
        let by_ads = json!({"ads": {}});
        let scoped = json!({"name": "s", "scope_key_builder": {}, "scoped_rds": {"scoped_rds_config_source": by_ads}});
        let of = |fields: Value| told(&fields).into_iter().map(|told| told.split(',').next().unwrap().to_owned());
        let told: Vec<_> = [
            json!({"http_filters": [router], "scoped_routes": scoped}),
            json!({"http_filters": [router], "route_config": {"vhds": {"config_source": by_ads}}}),
            json!({"http_filters": [{"name": "mine", "config_discovery": {"config_source": by_ads}}, router]}),
            json!({"http_filters": [
                {"name": "extensions.istio.io/wasmplugin/shop.a", "config_discovery": {"config_source": by_ads}}, router]}),
        ]
        .into_iter()
        .flat_map(of)
        .collect();
        assert_eq!(
            told,
            [
                "scoped_routes.scoped_rds.scoped_rds_config_source: scoped routes are not served over ADS: write scoped_route_configurations_list",
                "route_config.vhds.config_source: virtual hosts are not served over ADS by themselves: write them into the route",
                "http_filters[0].config_discovery.config_source: no filter of the name \"mine\" is served over ADS: write its typed_config",
            ]
        );
    }
}
