//! What holds for any plugins and templates whatever.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select as one_of;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::fixtures::{labels, listener, plugin, template};
use super::{Compiled, Difference, Filters, Kind, Workload, compile, compile_with, difference, order, select_offline};
use crate::model::{
    Direction, EnvoyVersion, FailStrategy, ListenerProtocol, LuaProgram, Plugin, PluginId, PluginKind, PluginType,
    Position, Program, ProxyTemplate, Selector, TrafficMatch, WithoutConfig, WorkloadMode, WorkloadTarget,
};
use crate::snapshot::{Extension, ResourceType};

type Plugins = Vec<Arc<Plugin>>;
type Templates = Vec<Arc<ProxyTemplate>>;

fn target() -> impl Strategy<Value = WorkloadTarget> {
    let selector = |pairs: &[(&str, &str)]| WorkloadTarget::Labels(Selector(labels(pairs)));
    one_of(vec![WorkloadTarget::Everything, selector(&[("app", "web")]), selector(&[("app", "api")])])
}

fn matches() -> impl Strategy<Value = Vec<TrafficMatch>> {
    let mode = one_of(vec![WorkloadMode::Client, WorkloadMode::Server, WorkloadMode::ClientAndServer]);
    let entry = (mode, prop::collection::vec(1_u16..4, 0..2)).prop_map(|(mode, ports)| TrafficMatch { mode, ports });
    prop::collection::vec(entry, 0..3)
}

fn any_plugin(namespaces: &'static [&'static str]) -> impl Strategy<Value = Plugin> {
    let times = vec![None, Some("2024-01-01T00:00:00Z"), Some("2025-01-01T00:00:00Z")];
    let kinds = vec![PluginKind::WasmPlugin, PluginKind::TrafficExtension];
    let strategies = vec![FailStrategy::FailClose, FailStrategy::FailOpen, FailStrategy::FailReload];
    let id = (one_of(kinds), one_of(namespaces), "[a-c]");
    let place = (one_of(Position::ALL.to_vec()), -1..2, one_of(times), target(), matches());
    (id, place, 0..4, one_of(strategies), any::<bool>()).prop_map(
        |(
            (kind, namespace, name),
            (position, priority, created, target, matches),
            what,
            fail_strategy,
            is_disabled,
        )| {
            let mut plugin = plugin(&format!("{namespace}/{name}"));
            plugin.id = PluginId::new(kind, namespace, &name);
            (plugin.position, plugin.priority) = (position, priority);
            plugin.created = created.map(|it| it.parse().unwrap());
            (plugin.target, plugin.matches) = (target, matches);
            (plugin.fail_strategy, plugin.is_disabled) = (fail_strategy, is_disabled);
            match what {
                0 => plugin.plugin_type = PluginType::Network,
                1 => plugin.program = Program::Lua(LuaProgram { source: "x = 1".into() }),
                _ => {}
            }
            plugin
        },
    )
}

/// Of one id there is one.
fn plugins(namespaces: &'static [&'static str]) -> impl Strategy<Value = Plugins> {
    prop::collection::vec(any_plugin(namespaces), 0..10).prop_map(|plugins| {
        let by_id: BTreeMap<_, _> = plugins.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
        by_id.into_values().map(Arc::new).collect()
    })
}

fn any_template(namespaces: &'static [&'static str]) -> impl Strategy<Value = ProxyTemplate> {
    let directions = vec![Direction::Inbound, Direction::Outbound, Direction::Gateway];
    let protocol = one_of(vec![ListenerProtocol::Http, ListenerProtocol::Tcp]);
    let spec = ("[l-n]", 1_u16..4, protocol, one_of(directions), any::<bool>());
    let specs = prop::collection::vec(spec, 0..4);
    (one_of(namespaces), "[a-c]", any::<bool>(), any::<bool>(), specs).prop_map(
        |(namespace, name, is_selecting, is_open, specs)| {
            let specs = specs.into_iter().map(|(name, port, protocol, direction, is_answering)| {
                let mut spec = listener(&name, port, protocol);
                spec.direction = direction;
                spec.forward_to = spec.forward_to.filter(|_| !is_answering);
                spec
            });
            ProxyTemplate {
                selector: is_selecting.then(|| Selector(labels(&[("app", "web")]))),
                without_config: if is_open { WithoutConfig::Allow } else { WithoutConfig::Deny },
                listeners: specs.collect(),
                ..template(&format!("{namespace}/{name}"))
            }
        },
    )
}

fn templates(namespaces: &'static [&'static str]) -> impl Strategy<Value = Templates> {
    prop::collection::vec(any_template(namespaces), 0..4).prop_map(|templates| {
        let by_id: BTreeMap<_, _> = templates.into_iter().map(|it| (it.id.clone(), it)).collect();
        by_id.into_values().map(Arc::new).collect()
    })
}

/// The same twice, in two orders.
fn shuffled<T: Clone + std::fmt::Debug + 'static>(
    values: impl Strategy<Value = Vec<T>>,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    values.prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle()))
}

/// Releases of filter mode and of chain mode.
fn release() -> impl Strategy<Value = EnvoyVersion> {
    one_of(vec![EnvoyVersion::new(1, 36, 4), EnvoyVersion::new(1, 40, 0)])
}

/// What `shop`'s proxy with `app: web` is sorted into.
fn kind_of(release: EnvoyVersion, plugins: &Plugins, templates: &Templates) -> Kind {
    let workload =
        Workload { namespace: "shop".into(), labels: labels(&[("app", "web")]), root_namespace: "root".into() };
    select_offline(&workload.on(release), "root", plugins.iter(), templates.iter())
}

/// Everything of it but the snapshot, in words.
fn told(compiled: &Compiled) -> String {
    let carried = compiled.plugins.iter().map(|it| format!("{} {:?} {:?}", it.plugin, it.listeners, it.carriers));
    format!("{:?} {:?}", carried.collect::<Vec<_>>(), compiled.problems)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_total_and_independent_of_the_order_of_the_input(
        (one, other) in shuffled(plugins(&["shop", "root"])),
    ) {
        let sorted = |mut plugins: Plugins| {
            plugins.sort_by(|a, b| order::by_run(a, b, "shop"));
            plugins.into_iter().map(|plugin| plugin.id.clone()).collect::<Vec<_>>()
        };
        for a in &one {
            for b in &one {
                let found = order::by_run(a, b, "shop");
                prop_assert_eq!(found, order::by_run(b, a, "shop").reverse());
                prop_assert_eq!(found == Ordering::Equal, a.id == b.id);
            }
        }
        prop_assert_eq!(sorted(one), sorted(other));
    }

    #[test]
    fn the_same_input_in_any_order_is_served_as_the_same(
        (one, other) in shuffled(plugins(&["shop", "root", "other"])),
        (ours, theirs) in shuffled(templates(&["shop", "root", "other"])),
        release in release(),
    ) {
        let (one, other) = (kind_of(release, &one, &ours), kind_of(release, &other, &theirs));
        prop_assert_eq!(one.key(), other.key());
        let (one, other) = (compile(&one), compile(&other));
        prop_assert_eq!(difference(&one, &other), Difference::default());
        prop_assert_eq!(told(&one), told(&other));
        for (name, listener) in &one.snapshot.listeners {
            prop_assert_eq!(listener.body.to_bytes(), other.snapshot.listeners[name].body.to_bytes());
        }
    }

    #[test]
    fn a_change_in_another_namespace_changes_nothing_here(
        here in plugins(&["shop", "root"]),
        ours in templates(&["shop", "root"]),
        (before, after) in (plugins(&["other"]), plugins(&["other"])),
        (theirs_before, theirs_after) in (templates(&["other"]), templates(&["other"])),
        release in release(),
    ) {
        let with = |plugins: Plugins, templates: Templates| {
            let (plugins, templates) = ([here.clone(), plugins].concat(), [ours.clone(), templates].concat());
            kind_of(release, &plugins, &templates)
        };
        let (before, after) = (with(before, theirs_before), with(after, theirs_after));
        prop_assert_eq!(before.key(), after.key());
        prop_assert_eq!(difference(&compile(&before), &compile(&after)), Difference::default());
    }

    #[test]
    fn what_was_compiled_before_does_not_show(
        before in plugins(&["shop", "root"]),
        after in plugins(&["shop", "root"]),
        ours in templates(&["shop", "root"]),
        (release_before, release) in (release(), release()),
    ) {
        let filters = Filters::default();
        let _before = compile_with(&kind_of(release_before, &before, &ours), &filters);
        let after = kind_of(release, &after, &ours);
        let (after, anew) = (compile_with(&after, &filters), compile(&after));
        prop_assert_eq!(difference(&after, &anew), Difference::default());
        prop_assert_eq!(told(&after), told(&anew));
        for carrier in anew.carriers.iter().filter(|it| it.resource_type == ResourceType::ExtensionConfig) {
            let [after, anew] = [&after, &anew].map(|compiled| match compiled.snapshot.extensions.resolve(&carrier.name) {
                Some(Extension::Known(resource)) => resource.body.to_bytes(),
                other => panic!("{carrier:?}: {other:?}"),
            });
            prop_assert_eq!(after, anew);
        }
    }

    /// In chain mode, that is: HTTP plugins, however many and whatever they are, are no part of the listener.
    #[test]
    fn http_plugins_never_change_a_listener_in_chain_mode(
        before in plugins(&["shop", "root"]),
        after in plugins(&["shop", "root"]),
        ours in templates(&["shop", "root"]),
    ) {
        let http = |plugins: Plugins| plugins.into_iter().filter(|it| it.plugin_type == PluginType::Http).collect();
        let of = |plugins| compile(&kind_of(EnvoyVersion::new(1, 40, 0), &http(plugins), &ours));
        prop_assert_eq!(difference(&of(before), &of(after)).drains.len(), 0);
    }
}

/// The properties above say nothing where there is nothing: most of what they look at runs plugins, and differs.
#[test]
fn what_the_properties_look_at_runs_plugins_and_changes_with_them() {
    let mut runner = TestRunner::deterministic();
    let values = (plugins(&["shop", "root", "other"]), templates(&["shop", "root", "other"]), release());
    let (mut running, mut changing, mut draining) = (0, 0, 0);
    for _ in 0..128 {
        let (plugins, templates, release) = values.new_tree(&mut runner).unwrap().current();
        let of = |plugins: &Plugins| compile(&kind_of(release, plugins, &templates));
        let (without, with) = (of(&Vec::new()), of(&plugins));
        let difference = difference(&without, &with);
        running += usize::from(with.plugins.iter().any(|plugin| !plugin.listeners.is_empty()));
        changing += usize::from(!difference.resources.is_empty());
        draining += usize::from(!difference.drains.is_empty());
    }
    assert!(running > 32 && changing > 32 && draining > 8, "of 128: {running}, {changing}, {draining}");
}
