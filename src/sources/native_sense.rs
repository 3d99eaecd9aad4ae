//! What no single field of a native resource shows, and what a proxy would refuse or wait for in vain all the same.
//!
//! Pure. Comes in: an encoded resource. Goes out: its faults, each with its path within the resource.

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
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig"
            if part.ask("sds_config", |source| source.has("ads")) == Some(true) =>
        {
            let reason = "secrets are not served over ADS: name a file (path_config_source) or another server, or write the certificate itself";
            faults.push((part.path_of("sds_config"), reason.to_owned()));
        }
        _ => {}
    });
    faults
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
        let discovered = json!({"name": "r", "config_discovery": {"config_source": {"ads": {}}}});
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
}
