//! Templates that stand in each other's way, and references of theirs that lead nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::shapes::listeners;
use super::{Found, reach};
use crate::model::{NativeKind, ProxyTemplate};
use crate::protobuf::{Part, walk};
use crate::sources::Loaded;
use crate::sources::native::{list_of, message_of};

/// A resource's type and name.
type Name = (NativeKind, String);

pub(super) fn check(loaded: &Loaded, root: &str, found: &mut Found<'_>) {
    let templates: Vec<_> = loaded.templates.values().collect();
    for (index, template) in templates.iter().enumerate() {
        dangling(template, &templates, root, found);
        for other in &templates[index + 1..] {
            if reach::surely_share(template, other, root) {
                let (winner, loser) = if wins(template, other, root) { (template, other) } else { (other, template) };
                clashes(winner, loser, found);
            }
        }
    }
}

/// Own namespace before root, then older (absent is oldest), then name.
fn wins(left: &ProxyTemplate, right: &ProxyTemplate, root: &str) -> bool {
    let rank = |it: &ProxyTemplate| (&*it.id.namespace == root, it.created, it.id.name.clone());
    rank(left) <= rank(right)
}

fn clashes(winner: &ProxyTemplate, loser: &ProxyTemplate, found: &mut Found<'_>) {
    let mut warn = |field: &str, reason: String| found.warn(format!("ProxyTemplate {}", loser.id), None, field, reason);
    let won = declared(winner);
    for (path, name, content) in declared(loser) {
        if won.iter().any(|(_, other, of_other)| *other == name && *of_other != content) {
            let (kind, name) = (name.0.word(), name.1);
            warn(
                &path,
                format!("{kind} \"{name}\" is in ProxyTemplate {} too, which wins on proxies that get both", winner.id),
            );
        }
    }
    let winners = listeners(winner);
    for shape in listeners(loser) {
        let is_in_the_way = |other: &&super::shapes::Shape| other.socket == shape.socket && other.name != shape.name;
        if let (Some(socket), Some(other)) = (&shape.socket, winners.iter().find(is_in_the_way)) {
            let (name, id) = (&other.name, &winner.id);
            warn(
                &shape.path,
                format!(
                    "listener \"{name}\" of ProxyTemplate {id} has its address {socket}: proxies that get both are served that one only"
                ),
            );
        }
    }
}

/// All resources of a template: path, name, content.
fn declared(template: &ProxyTemplate) -> Vec<(String, Name, String)> {
    let short = template.listeners.iter().enumerate().map(|(index, spec)| {
        (format!("spec.listeners[{index}].name"), (NativeKind::Listener, spec.name.clone()), format!("{spec:?}"))
    });
    let native = indexed(template)
        .map(|(path, resource)| (path, (resource.kind, resource.name.clone()), format!("{:?}", resource.message)));
    short.chain(native).collect()
}

/// The native resources, each with its path.
fn indexed(template: &ProxyTemplate) -> impl Iterator<Item = (String, &crate::model::NativeResource)> {
    template.native.iter().enumerate().map(|(index, resource)| {
        let before = template.native[..index].iter().filter(|other| other.kind == resource.kind).count();
        (format!("spec.envoy.{}[{before}]", list_of(resource.kind)), resource)
    })
}

/// Fields that hold the name of a cluster.
const CLUSTER_NAMES: [(&str, &str); 13] = [
    ("envoy.config.route.v3.RouteAction", "cluster"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "cluster"),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "name"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight", "name"),
    ("envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", "cluster"),
    ("envoy.extensions.filters.udp.udp_proxy.v3.Route", "cluster"),
    ("envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.PrefixRoutes.Route", "cluster"),
    ("envoy.extensions.filters.network.thrift_proxy.v3.RouteAction", "cluster"),
    ("envoy.extensions.filters.network.thrift_proxy.v3.WeightedCluster.ClusterWeight", "name"),
    ("envoy.extensions.filters.network.generic_proxy.action.v3.RouteAction", "cluster"),
    ("envoy.config.core.v3.GrpcService.EnvoyGrpc", "cluster_name"),
    ("envoy.config.core.v3.HttpUri", "cluster"),
];

/// `Cluster.DiscoveryType.EDS`.
const EDS: i32 = 3;

fn dangling(template: &ProxyTemplate, all: &[&Arc<ProxyTemplate>], root: &str, found: &mut Found<'_>) {
    if template.native.is_empty() {
        return;
    }
    let names: BTreeSet<Name> =
        all.iter().filter(|other| reach::may_share(template, other, root)).flat_map(|it| provided(it)).collect();
    for (path, resource) in indexed(template) {
        walk(message_of(resource.kind), &resource.message, &mut |part| {
            for (own, name) in references(part).into_iter().filter(|(_, name)| !names.contains(name)) {
                found.warn(format!("ProxyTemplate {}", template.id), None, &format!("{path}.{own}"), missing(&name));
            }
        });
    }
}

fn missing((kind, name): &Name) -> String {
    match kind {
        NativeKind::Cluster => format!(
            "no ProxyTemplate here has the cluster \"{name}\": traffic for it fails, unless it is in the proxies' bootstrap"
        ),
        kind => format!("no ProxyTemplate here has the {} \"{name}\": the proxy waits for it", kind.word()),
    }
}

fn provided(template: &ProxyTemplate) -> Vec<Name> {
    let short = template.listeners.iter().filter(|spec| spec.forward_to.is_some());
    let short = short.map(|spec| (NativeKind::Cluster, format!("wasmplane/{}", spec.name)));
    short.chain(template.native.iter().map(|resource| (resource.kind, resource.name.clone()))).collect()
}

/// What the message itself refers to, each with the path of the field that names it.
fn references(part: &Part<'_>) -> Vec<(String, Name)> {
    let is_by_ads = |field: &str| part.ask(field, |source| source.has("ads")) == Some(true);
    let named = |part: &Part<'_>, field: &str, kind| Some((part.path_of(field), (kind, part.text(field)?)));
    match part.type_name().as_str() {
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds" if is_by_ads("config_source") => {
            named(part, "route_config_name", NativeKind::Route).into_iter().collect()
        }
        "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes"
            if is_by_ads("rds_config_source") =>
        {
            let of_scope = |scope: &Part<'_>| named(scope, "route_configuration_name", NativeKind::Route);
            let of_list = |list: &Part<'_>| list.ask_each("scoped_route_configurations", of_scope);
            part.ask("scoped_route_configurations_list", of_list).into_iter().flatten().flatten().collect()
        }
        "envoy.config.cluster.v3.Cluster" if part.enum_number("type") == Some(EDS) => {
            endpoints_of(part).into_iter().collect()
        }
        "envoy.extensions.clusters.aggregate.v3.ClusterConfig" => {
            let clusters = part.texts("clusters").into_iter().enumerate();
            clusters.map(|(at, name)| (part.path_of(&format!("clusters[{at}]")), (NativeKind::Cluster, name))).collect()
        }
        name => {
            let field = CLUSTER_NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
            field.and_then(|field| named(part, field, NativeKind::Cluster)).into_iter().collect()
        }
    }
}

fn endpoints_of(cluster: &Part<'_>) -> Option<(String, Name)> {
    let eds = "eds_cluster_config";
    let is_by_ads = cluster.ask(eds, |eds| eds.ask("eds_config", |source| source.has("ads")))? == Some(true);
    let service = cluster.ask(eds, |eds| eds.text("service_name")).flatten().or_else(|| cluster.text("name"))?;
    is_by_ads.then(|| (cluster.path_of(eds), (NativeKind::Endpoint, service)))
}
