//! Explanations of whole proxies, from manifests alone.

use super::*;
use crate::compile::fixtures::{labels, listener, plugin, template};
use crate::compile::{Workload, select_offline};
use crate::model::{EnvoyVersion, ListenerSpec, ProxyTemplate, Selector, TrafficMatch, WorkloadMode, WorkloadTarget};

const NEWEST: EnvoyVersion = EnvoyVersion::new(1, 40, 0);

fn explained_on(release: EnvoyVersion, plugins: Vec<Plugin>, template: ProxyTemplate) -> Explanation {
    let workload =
        Workload { namespace: "shop".into(), labels: labels(&[("app", "web")]), root_namespace: "root".into() };
    let plugins: Vec<_> = plugins.into_iter().map(Arc::new).collect();
    let proxy = workload.on(release);
    let kind = select_offline(&proxy, "root", plugins.iter(), [Arc::new(template)].iter());
    explain(&kind, &proxy, plugins.iter())
}

fn explained(plugins: Vec<Plugin>, listeners: Vec<ListenerSpec>) -> Explanation {
    explained_on(NEWEST, plugins, ProxyTemplate { listeners, ..template("shop/web") })
}

fn http(name: &str, port: u16) -> ListenerSpec {
    listener(name, port, ListenerProtocol::Http)
}

fn spelled(ids: &[PluginId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn reasons(skipped: &[(PluginId, String)]) -> Vec<String> {
    skipped.iter().map(|(id, reason)| format!("{id}: {reason}")).collect()
}

#[test]
fn plugins_are_listed_by_listener_in_the_order_in_which_they_run() {
    let (mut second, mut first, mut net) = (plugin("shop/second"), plugin("root/first"), plugin("shop/net"));
    (second.priority, first.priority) = (1, 2);
    net.plugin_type = PluginType::Network;
    let listeners = vec![http("in", 1), listener("tcp", 2, ListenerProtocol::Tcp)];
    let explanation = explained(vec![second, first, net], listeners);

    let [http, tcp] = &explanation.listeners[..] else { panic!("{explanation:?}") };
    assert_eq!(spelled(&http.http), ["root/first", "shop/second"]);
    let chain = &http.chains[0];
    assert_eq!((chain.name.as_str(), &chain.http, &chain.network), ("in", &http.http, &http.network));
    assert_eq!(
        (tcp.protocol, tcp.http.len(), spelled(&tcp.network)),
        (ListenerProtocol::Tcp, 0, vec!["shop/net".to_owned()])
    );
    assert_eq!(reasons(&tcp.skipped)[0], "root/first: the listener does not speak HTTP");
    assert_eq!(explanation.skipped, []);
}

#[test]
fn each_gap_says_between_which_filters_it_stands_and_what_carries_it() {
    let mut auth = plugin("shop/auth");
    auth.position = Position::PreAuthN;
    let mut net = plugin("shop/net");
    net.plugin_type = PluginType::Network;
    let of = |release| {
        let explanation = explained_on(
            release,
            vec![auth.clone(), plugin("shop/log"), net.clone()],
            ProxyTemplate { listeners: vec![http("in", 1)], ..template("shop/web") },
        );
        (explanation.mode, explanation.listeners[0].chains[0].gaps.clone())
    };
    let (mode, gaps) = of(NEWEST);
    assert_eq!((mode, gaps.len()), (Mode::Chain, 2));
    assert_eq!(gaps[0].before.as_deref(), Some("envoy.filters.network.http_connection_manager"));
    assert_eq!(gaps[0].resources, ["extensions.istio.io/wasmplugin/network/shop.net"]);
    let expected = ExplainedGap {
        plugin_type: PluginType::Http,
        upgrade: String::new(),
        first: Position::PreAuthN,
        last: Position::BeforeRouter,
        after: None,
        before: Some("envoy.filters.http.router".into()),
        plugins: vec![auth.id.clone(), plugin("shop/log").id],
        resources: vec!["wasmplane/in/PreAuthN-BeforeRouter".into()],
    };
    assert_eq!(gaps[1], expected);

    let (mode, gaps) = of(EnvoyVersion::new(1, 38, 0));
    assert_eq!(mode, Mode::Filter);
    assert_eq!(
        gaps[1].resources,
        ["extensions.istio.io/wasmplugin/shop.auth", "extensions.istio.io/wasmplugin/shop.log"]
    );
}

#[test]
fn the_order_is_explained_from_one_plugin_to_the_next_of_its_type() {
    let (mut first, mut net) = (plugin("shop/first"), plugin("shop/net"));
    first.priority = 7;
    net.plugin_type = PluginType::Network;
    let explanation = explained(vec![plugin("shop/x"), first, net], vec![http("in", 1)]);
    let after: Vec<_> = explanation.plugins.iter().map(|it| (it.plugin.id.to_string(), it.after.clone())).collect();
    let why = (plugin("shop/first").id, "priority 0 is lower than 7".to_owned());
    assert_eq!(
        after,
        [("shop/first".to_owned(), None), ("shop/net".to_owned(), None), ("shop/x".to_owned(), Some(why))]
    );
    assert_eq!(explanation.plugins[0].resources, ["wasmplane/in/PreAuthN-BeforeRouter"]);
}

#[test]
fn a_plugin_on_no_listener_is_skipped_with_the_reason() {
    let mut labelled = plugin("shop/labelled");
    labelled.target = WorkloadTarget::Labels(Selector(labels(&[("app", "api")])));
    let mut client = plugin("shop/client");
    client.matches = vec![TrafficMatch { mode: WorkloadMode::Client, ports: Vec::new() }];
    let plugins = vec![plugin("other/x"), labelled, client];

    let explanation = explained(plugins, vec![http("in", 1)]);
    assert_eq!(
        reasons(&explanation.skipped),
        [
            "other/x: namespace other is neither the proxy's nor the root namespace",
            "shop/client: match does not fit any listener: in (INBOUND 1)",
            "shop/labelled: selector does not match: app=api",
        ]
    );
    assert_eq!(
        reasons(&explanation.listeners[0].skipped),
        ["shop/client: match[0] wants mode CLIENT and the listener is INBOUND"]
    );
    assert_eq!(
        reasons(&explained(vec![plugin("shop/a")], vec![listener("in", 1, ListenerProtocol::Tcp)]).skipped),
        ["shop/a: no listener speaks HTTP"]
    );
    assert_eq!(
        reasons(&explained(vec![plugin("shop/a")], vec![]).skipped),
        ["shop/a: no ProxyTemplate describes a listener of this proxy: only a static listener can name \
         extensions.istio.io/wasmplugin/shop.a"]
    );
}

#[test]
fn a_disabled_plugin_is_skipped_and_one_that_is_too_new_is_a_problem() {
    let mut off = plugin("shop/off");
    off.is_disabled = true;
    let mut new = plugin("shop/new");
    crate::compile::fixtures::wasm(&mut new).options.allow_on_headers_stop_iteration = Some(true);
    let template = ProxyTemplate { listeners: vec![http("in", 1)], ..template("shop/web") };
    let explanation = explained_on(EnvoyVersion::new(1, 34, 0), vec![off, new], template);

    assert_eq!(reasons(&explanation.skipped), ["shop/off: disabled by wasmplane.io/disabled"]);
    assert_eq!(spelled(&explanation.listeners[0].http), ["shop/new"]);
    let problem = &explanation.problems[0];
    assert_eq!(problem.resource, "WasmPlugin shop/new");
    assert!(problem.reason.contains("needs Envoy 1.35"), "{problem:?}");
}
