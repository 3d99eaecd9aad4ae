//! Whole kinds of proxies, compiled.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fixtures::{kind, listener, plugin, revision, run, template};
use super::{Compiled, Filters, Kind, ModuleServer, Run, compile, compile_with, type_urls};
use crate::model::{
    Capabilities, Code, FailStrategy, ListenerProtocol, LuaProgram, NativeKind, NativeResource, PluginRevision,
    PluginType, Position, Program, ProxyTemplate,
};
use crate::protobuf::{from_json, to_json};
use crate::snapshot::{Extension, Resource, ResourceType};

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CHAIN: &str = "wasmplane/l/PreAuthN-BeforeRouter";

fn short(protocol: ListenerProtocol) -> ProxyTemplate {
    ProxyTemplate { listeners: vec![listener("l", 8080, protocol)], ..template("shop/web") }
}

fn native(listener: &Value) -> ProxyTemplate {
    let message = from_json(LISTENER, listener).unwrap();
    let name = listener["name"].as_str().unwrap().to_owned();
    let native = vec![NativeResource { kind: NativeKind::Listener, name, message }];
    ProxyTemplate { native, ..template("shop/native") }
}

fn http(id: &str, position: Position) -> Arc<PluginRevision> {
    let mut plugin = plugin(id);
    plugin.position = position;
    run(plugin, id)
}

fn network(id: &str, position: Position) -> Arc<PluginRevision> {
    let mut plugin = plugin(id);
    (plugin.position, plugin.plugin_type) = (position, PluginType::Network);
    run(plugin, id)
}

fn listener_json(compiled: &Compiled, name: &str) -> Value {
    to_json(LISTENER, &compiled.snapshot.listeners[name].body.to_bytes())
}

fn extension(compiled: &Compiled, name: &str) -> Arc<Resource> {
    match compiled.snapshot.extensions.resolve(name) {
        Some(Extension::Known(resource)) => resource,
        other => panic!("{name}: {other:?}"),
    }
}

fn typed_config(resource: &Resource) -> Value {
    to_json("envoy.config.core.v3.TypedExtensionConfig", &resource.body.to_bytes())["typed_config"].clone()
}

fn members(resource: &Resource) -> Vec<String> {
    let filters = typed_config(resource)["default_filter_chain"]["filters"].clone();
    filters.as_array().into_iter().flatten().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

fn names(filters: &Value) -> Vec<&str> {
    filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect()
}

#[test]
fn in_chain_mode_plugins_never_change_the_listener() {
    let with = |plugins| compile(&kind(vec![short(ListenerProtocol::Http)], plugins));
    let none = with(vec![]);
    let two = with(vec![http("shop/b", Position::PreAuthN), http("shop/a", Position::BeforeRouter)]);
    assert_eq!(none.snapshot.listeners["l"].version, two.snapshot.listeners["l"].version);
    assert_eq!(none.snapshot.listeners["l"].body.to_bytes(), two.snapshot.listeners["l"].body.to_bytes());
    assert_eq!(members(&extension(&none, CHAIN)), [""; 0]);
    assert_eq!(members(&extension(&two, CHAIN)), ["shop/b", "shop/a"]);
    assert_eq!(
        two.snapshot.listeners["l"].references,
        [(ResourceType::Cluster, "wasmplane/l".into()), (ResourceType::ExtensionConfig, CHAIN.into())]
    );
}

#[test]
fn a_chain_has_its_parts_and_a_stand_in_without_wasm() {
    let revision = revision("shop/a", "one");
    let compiled = compile(&kind(vec![short(ListenerProtocol::Http)], vec![revision.clone()]));
    let chain = extension(&compiled, CHAIN);
    assert_eq!((&*chain.parts[0].owner, &*chain.parts[0].revision), ("shop/a", &*revision.revision.to_string()));
    let stand_in = chain.stand_in.clone().unwrap();
    assert_eq!(&*stand_in.name, CHAIN);
    assert_eq!(typed_config(&stand_in)["rules"], json!({}));

    let carried = &compiled.plugins[0];
    assert_eq!(carried.listeners, ["l"]);
    assert_eq!(carried.carriers, [chain.identity.clone(), compiled.snapshot.listeners["l"].identity.clone()]);
}

#[test]
fn in_filter_mode_each_plugin_is_a_filter_before_its_anchor() {
    let jwt = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let filters = json!([
        {"name": "jwt", "typed_config": {"@type": jwt}}, {"name": "router", "typed_config": {"@type": router}}
    ]);
    let hcm = json!({"name": "hcm", "typed_config": {
        "@type": type_urls::HTTP_CONNECTION_MANAGER,
        "stat_prefix": "mine",
        "http_filters": filters,
        "upgrade_configs": [
            {"upgrade_type": "websocket"},
            {"upgrade_type": "CONNECT", "filters": [{"name": "router", "typed_config": {"@type": router}}]}],
    }});
    let tcp = json!({"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t", "cluster": "c"}});
    let quic = json!({"name": "quic", "typed_config": {
        "@type": type_urls::QUIC_TRANSPORT, "downstream_tls_context": {}}});
    let written = json!({
        "name": "n",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 443}},
        "per_connection_buffer_limit_bytes": 1000,
        "filter_chains": [
            {"filters": [hcm.clone()], "filter_chain_match": {"server_names": ["a"]}},
            {"filters": [tcp]},
            {"filters": [hcm.clone()], "transport_socket": quic},
        ],
        "default_filter_chain": {"filters": [hcm]},
    });
    let mut kind = kind(
        vec![native(&written)],
        vec![
            http("shop/first", Position::PreAuthN),
            network("shop/net", Position::PreAuthN),
            http("shop/last", Position::BeforeRouter),
        ],
    );
    kind.capabilities = Capabilities::default();
    let compiled = compile(&kind);
    let listener = listener_json(&compiled, "n");

    let first = "extensions.istio.io/wasmplugin/shop.first";
    let last = "extensions.istio.io/wasmplugin/shop.last";
    let net = "extensions.istio.io/wasmplugin/network/shop.net";
    let chains = [&listener["filter_chains"][0], &listener["filter_chains"][2], &listener["default_filter_chain"]];
    for (chain, network) in chains.into_iter().zip([true, false, true]) {
        let expected = if network { vec![net, "hcm"] } else { vec!["hcm"] };
        assert_eq!(names(&chain["filters"]), expected);
        let hcm = &chain["filters"][usize::from(network)]["typed_config"];
        assert_eq!(names(&hcm["http_filters"]), [first, "jwt", last, "router"]);
        assert_eq!(names(&hcm["upgrade_configs"][1]["filters"]), [first, last, "router"]);
        assert_eq!(hcm["stat_prefix"], "mine");
    }
    assert_eq!(names(&listener["filter_chains"][1]["filters"]), [net, "tcp"]);
    assert_eq!(listener["per_connection_buffer_limit_bytes"], 1000);
    assert_eq!(listener["filter_chains"][0]["filter_chain_match"], json!({"server_names": ["a"]}));
    assert_eq!(compiled.problems, []);
    assert_eq!(typed_config(&extension(&compiled, first))["config"]["name"], "shop/first");
}

#[test]
fn a_stub_waits_for_its_configuration_and_then_has_a_default() {
    let compiled = compile(&kind(vec![short(ListenerProtocol::Http)], vec![]));
    let listener = listener_json(&compiled, "l");
    let hcm = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(
        hcm["http_filters"][0],
        json!({"name": CHAIN, "config_discovery": {
            "config_source": {"ads": {}, "resource_api_version": "V3"},
            "default_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {}},
            "type_urls": [
                "type.googleapis.com/envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig",
                "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"],
        }})
    );
}

#[test]
fn without_wasm_an_open_plugin_is_nothing_and_a_closed_one_denies() {
    let mut open = plugin("shop/open");
    open.fail_strategy = FailStrategy::FailOpen;
    let mut kind = kind(vec![short(ListenerProtocol::Http)], vec![run(open, "m"), revision("shop/closed", "m")]);
    kind.capabilities = Capabilities { chain: false, wasm: false };
    for member in &mut kind.plugins {
        member.run = Run::Unsupported { reason: "no V8".into() };
    }
    let compiled = compile(&kind);
    let listener = listener_json(&compiled, "l");
    let filters = &listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let closed = "extensions.istio.io/wasmplugin/shop.closed";
    assert_eq!(names(filters), [closed, "envoy.filters.http.router"]);
    assert_eq!(filters[0]["config_discovery"]["type_urls"], json!([type_urls::HTTP_RBAC]));
    assert_eq!(typed_config(&extension(&compiled, closed))["rules"], json!({}));
    assert_eq!((compiled.plugins[0].carriers.len(), compiled.plugins[1].carriers.len()), (0, 2));
}

#[test]
fn stand_ins_and_absent_plugins_in_a_chain() {
    let mut open = plugin("shop/open");
    open.fail_strategy = FailStrategy::FailOpen;
    let plugins = vec![run(open, "m"), revision("shop/closed", "m"), revision("shop/absent", "m")];
    let mut kind = kind(vec![short(ListenerProtocol::Http)], plugins);
    let stand_in = Run::StandIn { reason: "refused".into() };
    kind.plugins[0].run = stand_in.clone();
    kind.plugins[1].run = stand_in;
    kind.plugins[2].run = Run::Absent;
    let compiled = compile(&kind);
    let chain = extension(&compiled, CHAIN);
    assert_eq!(members(&chain), ["shop/closed"]);
    assert_eq!((chain.parts.len(), chain.stand_in.is_none()), (0, true));
    assert!(compiled.plugins[2].carriers.is_empty());
    let absent = "extensions.istio.io/wasmplugin/shop.absent";
    assert!(compiled.snapshot.extensions.resolve(absent).is_none());
}

#[test]
fn disabling_a_plugin_changes_no_listener_in_any_mode_and_lets_traffic_pass() {
    let mut open = plugin("shop/open");
    open.fail_strategy = FailStrategy::FailOpen;
    let mut script = plugin("shop/script");
    script.program = Program::Lua(LuaProgram { source: "function envoy_on_request(handle) end".into() });
    let script = Arc::new(PluginRevision::new(Arc::new(script), Code::InSpecification));
    let revisions = vec![
        http("shop/closed", Position::PreAuthN),
        run(open, "m"),
        script,
        network("shop/net", Position::BeforeRouter),
    ];
    for (chain, wasm) in [(true, true), (false, true), (false, false), (true, false)] {
        let mut on = kind(vec![short(ListenerProtocol::Http)], revisions.clone());
        on.capabilities = Capabilities { chain, wasm };
        for member in &mut on.plugins {
            if !wasm && member.plugin.wasm().is_some() {
                member.run = Run::Unsupported { reason: "no V8".into() };
            }
        }
        let mut off = on.clone();
        for member in &mut off.plugins {
            member.run = Run::Disabled;
        }
        let (on, off) = (compile(&on), compile(&off));

        assert_eq!(on.snapshot.listeners["l"].version, off.snapshot.listeners["l"].version, "{chain} {wasm}");
        for (kind, name) in &off.snapshot.listeners["l"].references {
            if *kind == ResourceType::ExtensionConfig {
                assert_eq!(typed_config(&extension(&off, name)).get("rules"), None, "{name}");
                assert_eq!(members(&extension(&off, name)), [""; 0], "{name}");
            }
        }
    }
}

#[test]
fn names_that_no_listener_of_ours_uses_are_answered_too() {
    let compiled = compile(&kind(
        vec![short(ListenerProtocol::Http)],
        vec![http("shop/a", Position::PreAuthN), http("shop/b", Position::BeforeRouter)],
    ));
    let known = |name: &str| members(&extension(&compiled, name));
    assert_eq!(known("wasmplane/l/PreAuthN-PreAuthN"), ["shop/a"]);
    assert_eq!(known("wasmplane/l/PostAuthN-BeforeRouter"), ["shop/b"]);
    let wasm = extension(&compiled, "extensions.istio.io/wasmplugin/shop.a");
    assert_eq!(typed_config(&wasm)["config"]["name"], "shop/a");

    let passes = [
        "wasmplane/gone/PreAuthN-BeforeRouter",
        "extensions.istio.io/wasmplugin/shop.gone",
        "extensions.istio.io/wasmplugin/network/root.gone",
    ];
    for name in passes {
        match compiled.snapshot.extensions.resolve(name) {
            Some(Extension::PassThrough(resource)) => assert_eq!(typed_config(&resource).get("rules"), None),
            other => panic!("{name}: {other:?}"),
        }
    }
    for name in ["extensions.istio.io/wasmplugin/foreign.a", "wasmplane/other", "auth", ""] {
        assert!(compiled.snapshot.extensions.resolve(name).is_none(), "{name}");
    }
}

#[test]
fn without_templates_a_plugin_is_carried_under_its_own_name() {
    let mut matching = plugin("shop/a");
    matching.matches = vec![Default::default()];
    let compiled = compile(&kind(vec![], vec![run(matching, "m")]));
    let name = "extensions.istio.io/wasmplugin/shop.a";
    assert_eq!(compiled.plugins[0].carriers, [extension(&compiled, name).identity.clone()]);
    assert_eq!(compiled.problems[0].resource, "WasmPlugin shop/a");
}

#[test]
fn equal_input_has_equal_versions_and_a_changed_plugin_changes_its_chain_only() {
    let with = |module| compile(&kind(vec![short(ListenerProtocol::Http)], vec![revision("shop/a", module)]));
    let (one, again, other) = (with("one"), with("one"), with("two"));
    assert_eq!(extension(&one, CHAIN).version, extension(&again, CHAIN).version);
    assert_eq!(extension(&one, CHAIN).body.to_bytes(), extension(&again, CHAIN).body.to_bytes());
    assert_ne!(extension(&one, CHAIN).version, extension(&other, CHAIN).version);
    assert_eq!(one.snapshot.listeners["l"].version, other.snapshot.listeners["l"].version);
}

#[test]
fn an_edit_leaves_the_filters_beside_it_as_they_are_and_what_nobody_runs_is_forgotten() {
    let filters = Filters::default();
    let with =
        |module| kind(vec![short(ListenerProtocol::Http)], vec![revision("shop/a", module), revision("shop/b", "m")]);
    let (before, after) = (compile_with(&with("one"), &filters), compile_with(&with("two"), &filters));
    let is_same = |index: usize| {
        let [one, other] = [&before, &after].map(|compiled| extension(compiled, CHAIN).parts[index].owner.clone());
        assert_eq!(one, other);
        Arc::ptr_eq(&one, &other)
    };
    assert_eq!([is_same(0), is_same(1)], [false, true]);

    let anew = compile(&with("two"));
    assert_eq!(extension(&after, CHAIN).version, extension(&anew, CHAIN).version);
    assert_eq!(extension(&after, CHAIN).body.to_bytes(), extension(&anew, CHAIN).body.to_bytes());

    assert_eq!(filters.count(), 3);
    drop(before);
    filters.tidy();
    assert_eq!(filters.count(), 2);
    drop(after);
    filters.tidy();
    assert_eq!(filters.count(), 0);
}

#[test]
fn the_filters_of_one_way_of_delivery_are_not_those_of_the_other() {
    let filters = Filters::default();
    let inline = kind(vec![short(ListenerProtocol::Http)], vec![revision("shop/a", "m")]);
    let server = Arc::new(ModuleServer::new("http://modules.test", 0).unwrap());
    let by_digest = Kind { by_digest: Some(server), ..inline.clone() };
    let fetched = |kind| extension(&compile_with(kind, &filters), CHAIN).fetched.len();
    assert_eq!([fetched(&inline), fetched(&by_digest), fetched(&inline)], [0, 1, 0]);
}

#[test]
fn an_http_filter_chain_without_router_is_a_problem() {
    let hcm = json!({"@type": type_urls::HTTP_CONNECTION_MANAGER, "stat_prefix": "x"});
    let listener = json!({"name": "n", "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]});
    let compiled = compile(&kind(vec![native(&listener)], vec![]));
    assert_eq!(compiled.problems.len(), 1);
    assert_eq!(compiled.problems[0].reason, "listener n: an HTTP filter chain does not end with a router");
}

#[test]
fn a_connection_manager_that_cannot_be_filled_is_a_problem() {
    let wrapped = json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": type_urls::HTTP_CONNECTION_MANAGER, "value": {"stat_prefix": "x"}});
    let listener = json!({"name": "n", "filter_chains": [{"filters": [{"name": "hcm", "typed_config": wrapped}]}]});
    let compiled = compile(&kind(vec![native(&listener)], vec![]));
    let reasons: Vec<_> = compiled.problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons, ["listener n: no plugin reaches filter hcm: write it as plain typed_config"]);
}

#[test]
fn a_member_of_an_aggregate_cluster_is_used_by_it() {
    let cluster = |name: &str, more: Value| {
        let mut json = json!({"name": name, "connect_timeout": "5s"});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let message = from_json("envoy.config.cluster.v3.Cluster", &json).unwrap();
        NativeResource { kind: NativeKind::Cluster, name: name.into(), message }
    };
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
        "clusters": ["first", "second"],
    });
    let native = vec![
        cluster("all", json!({"cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": config}})),
        cluster("first", json!({"type": "STATIC"})),
        cluster("second", json!({"type": "EDS"})),
    ];
    let compiled = compile(&kind(vec![ProxyTemplate { native, ..template("shop/web") }], vec![]));
    let references = |name: &str| compiled.snapshot.clusters[name].references.clone();
    let members = ["first", "second"].map(|name| (ResourceType::Cluster, name.into()));
    assert_eq!(references("all"), members);
    assert_eq!(references("first"), []);
    assert_eq!(references("second"), [(ResourceType::Endpoint, "second".into())]);
}

/// A module of that many MiB; the pages are never touched.
fn large(id: &str, mebibytes: usize, created: Option<&str>) -> Arc<PluginRevision> {
    let mut plugin = plugin(id);
    plugin.created = created.map(|created| created.parse().unwrap());
    let bytes = bytes::Bytes::from(vec![0; mebibytes << 20]);
    let digest = crate::model::Digest::of(format!("{id} {mebibytes}").as_bytes());
    let module = Arc::new(crate::model::Module { digest, bytes, refusals: Vec::new(), root_id: None });
    Arc::new(PluginRevision::new(Arc::new(plugin), Code::Module(module)))
}

#[test]
fn a_plugin_too_many_for_an_inline_chain_is_left_out_with_the_reason_and_the_older_ones_stay() {
    let plugins = vec![
        large("shop/a", 14, Some("2024-01-01T00:00:00Z")),
        large("shop/b", 14, None),
        large("shop/c", 2, Some("2025-01-01T00:00:00Z")),
        large("shop/d", 14, Some("2023-01-01T00:00:00Z")),
    ];
    let compiled = compile(&kind(vec![short(ListenerProtocol::Http)], plugins));
    let chain = extension(&compiled, CHAIN);
    assert!(chain.body.len() <= 32 << 20, "{}", chain.body.len());
    let owners: Vec<_> = chain.parts.iter().map(|part| &*part.owner).collect();
    assert_eq!(owners, ["shop/b", "shop/c", "shop/d"], "the newest that does not fit is left out, not what is smaller");
    match &compiled.plugins[0].run {
        Run::TooLarge { reason } => assert_eq!(
            reason,
            "its module of 14.0 MiB does not fit into a chain of at most 32.0 MiB beside what has its room there"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(compiled.plugins[0].revision, None);
    assert!(matches!(compiled.plugins[1].run, Run::Revision(_)));
}

#[test]
fn a_new_plugin_in_front_does_not_push_out_one_that_runs() {
    // As from files, which have no creation times.
    let plugins = vec![large("shop/new", 14, None), large("shop/one", 14, None), large("shop/two", 14, None)];
    let mut kind = kind(vec![short(ListenerProtocol::Http)], plugins.clone());
    for (member, revision) in kind.plugins.iter_mut().zip(plugins).skip(1) {
        member.accepted = Some(revision);
    }
    let compiled = compile(&kind);
    let chain = extension(&compiled, CHAIN);
    assert_eq!(chain.parts.iter().map(|part| &*part.owner).collect::<Vec<_>>(), ["shop/one", "shop/two"]);
    assert!(matches!(compiled.plugins[0].run, Run::TooLarge { .. }));
}

#[test]
fn a_plugin_whose_module_outgrows_the_chain_goes_on_as_it_was_and_pushes_out_nobody() {
    let old = large("shop/a", 5, Some("2020-01-01T00:00:00Z"));
    let grown = large("shop/a", 20, Some("2020-01-01T00:00:00Z"));
    let others = [large("shop/b", 14, None), large("shop/c", 10, Some("2024-01-01T00:00:00Z"))];
    let mut kind = kind(vec![short(ListenerProtocol::Http)], [&[grown][..], &others].concat());
    for (member, accepted) in kind.plugins.iter_mut().zip([&[old.clone()][..], &others].concat()) {
        member.accepted = Some(accepted);
    }
    let compiled = compile(&kind);
    let chain = extension(&compiled, CHAIN);
    let parts: Vec<_> = chain.parts.iter().map(|part| (&*part.owner, &*part.revision)).collect();
    let wanted = [&old, &others[0], &others[1]].map(|it| (it.id().to_string(), it.revision.to_string()));
    assert_eq!(parts, wanted.each_ref().map(|(owner, revision)| (owner.as_str(), revision.as_str())));
    assert_eq!(compiled.plugins[0].revision, Some(old.revision));
    match &compiled.plugins[0].run {
        Run::TooLarge { reason } => assert!(reason.ends_with(": the revision before goes on"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_gets_its_room_first_makes_another_kind_only_where_there_is_no_room_for_all() {
    let is_another = |mebibytes| {
        let plugins = vec![large("shop/a", mebibytes, None), large("shop/b", mebibytes, None)];
        let before = kind(vec![short(ListenerProtocol::Http)], plugins.clone());
        let mut accepted = before.clone();
        accepted.plugins[1].accepted = Some(plugins[1].clone());
        let mut aged = before.clone();
        Arc::make_mut(&mut aged.plugins[0].plugin).created = Some("2024-01-01T00:00:00Z".parse().unwrap());
        [accepted, aged].map(|kind| kind.key() != before.key())
    };
    assert_eq!((is_another(10), is_another(20)), ([false; 2], [true; 2]));
}

#[test]
fn a_module_that_fits_no_message_is_left_out_of_a_filter_of_its_own_too() {
    let mut kind = kind(vec![short(ListenerProtocol::Http)], vec![large("shop/a", 33, None)]);
    kind.capabilities.chain = false;
    let compiled = compile(&kind);
    let alone = extension(&compiled, "extensions.istio.io/wasmplugin/shop.a");
    assert_eq!(typed_config(&alone)["@type"], type_urls::HTTP_RBAC);
    assert!(matches!(compiled.plugins[0].run, Run::TooLarge { .. }));
}
