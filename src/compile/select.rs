//! Which templates and plugins a proxy gets, and what of each plugin runs there.
//!
//! Comes in: all plugins and templates, and one proxy. Goes out: its [`Kind`].

use std::sync::Arc;

use super::applies::{applies, template_applies};
use super::{Kind, Member, Run, options, order};
use crate::model::{Code, EnvoyVersion, PluginEntry, PluginRevision, Proxy, ProxyFacts, ProxyTemplate};

/// Sorts `proxy` into its kind. `releases` are the Envoy releases that modules were judged for, oldest first.
pub fn select<'p, 't>(
    proxy: &Proxy,
    facts: &ProxyFacts,
    root_namespace: &str,
    plugins: impl Iterator<Item = &'p PluginEntry>,
    templates: impl Iterator<Item = &'t Arc<ProxyTemplate>>,
    releases: &[EnvoyVersion],
) -> Kind {
    let (namespace, labels) = (proxy.namespace.as_str(), &proxy.labels);
    let mut templates: Vec<_> =
        templates.filter(|it| template_applies(it, namespace, labels, root_namespace)).cloned().collect();
    templates.sort_by(|a, b| order::by_precedence(a, b, namespace));
    let mut members: Vec<_> = plugins
        .filter(|entry| applies(placing(entry), namespace, labels, root_namespace).is_ok())
        .map(|entry| {
            let run = run(entry, proxy, facts, releases);
            let accepted = accepted(entry, &run, proxy, facts, releases);
            Member { plugin: placing(entry).clone(), run, accepted }
        })
        .collect();
    members.sort_by(|a, b| order::by_run(&a.plugin, &b.plugin, namespace));
    Kind {
        namespace: namespace.into(),
        root_namespace: root_namespace.into(),
        capabilities: proxy.capabilities,
        by_digest: None,
        templates,
        plugins: members,
    }
}

/// The specification that places a plugin: the one that runs, until there is none.
fn placing(entry: &PluginEntry) -> &Arc<crate::model::Plugin> {
    entry.running.as_ref().map_or(&entry.desired, |running| &running.plugin)
}

fn run(entry: &PluginEntry, proxy: &Proxy, facts: &ProxyFacts, releases: &[EnvoyVersion]) -> Run {
    // A revision that was disabled does not come to life while the module of its successor is fetched.
    if entry.desired.is_disabled || entry.running.as_ref().is_some_and(|running| running.plugin.is_disabled) {
        return Run::Disabled;
    }
    let Some(running) = &entry.running else {
        return match facts.stand_ins.contains(&entry.desired.id) {
            true => Run::StandIn { reason: "no module yet".into() },
            false => Run::Absent,
        };
    };
    if !proxy.capabilities.wasm && running.plugin.wasm().is_some() {
        return Run::Unsupported { reason: "this Envoy has no Wasm runtime (envoy.wasm.runtime.v8)".into() };
    }
    let unfit = refusal(running, proxy, releases);
    if unfit.is_none() && !is_refused(running, facts) {
        return Run::Revision(running.clone());
    }
    let is_fit = |good: &&Arc<PluginRevision>| {
        good.revision != running.revision && can_replace(good, running, proxy, facts, releases)
    };
    // What ran here goes on. What others took comes only where that is not known.
    let own = facts.last_good.get(running.id());
    let own = entry.good.iter().filter(is_fit).find(|good| Some(&good.revision) == own);
    match (own.or_else(|| entry.good.iter().find(is_fit)), unfit) {
        (Some(good), unfit) => Run::LastGood(good.clone(), unfit),
        (None, Some(reason)) => Run::Unsupported { reason },
        (None, None) => Run::StandIn { reason: "this Envoy refused the plugin and there is no older revision".into() },
    }
}

/// What goes on of a plugin where what is to run has no room.
fn accepted(
    entry: &PluginEntry,
    run: &Run,
    proxy: &Proxy,
    facts: &ProxyFacts,
    releases: &[EnvoyVersion],
) -> Option<Arc<PluginRevision>> {
    let running = run.revision()?;
    let is_fit = |good: &&Arc<PluginRevision>| can_replace(good, running, proxy, facts, releases);
    let is_it = |good: &&Arc<PluginRevision>| good.revision == running.revision;
    entry.good.iter().find(is_it).or_else(|| entry.good.iter().find(is_fit)).cloned()
}

/// A revision of the other filter type cannot stand where this one stands.
fn can_replace(
    good: &PluginRevision,
    running: &PluginRevision,
    proxy: &Proxy,
    facts: &ProxyFacts,
    releases: &[EnvoyVersion],
) -> bool {
    good.plugin.plugin_type == running.plugin.plugin_type
        && !is_refused(good, facts)
        && refusal(good, proxy, releases).is_none()
}

fn is_refused(revision: &PluginRevision, facts: &ProxyFacts) -> bool {
    if facts.refused.is_empty() && facts.aside.is_empty() {
        return false;
    }
    let revision = (revision.id().clone(), revision.revision);
    facts.refused.contains(&revision) || facts.aside.contains(&revision)
}

/// Why this Envoy cannot run the revision: its settings are too new for it, or its module does not fit.
fn refusal(revision: &PluginRevision, proxy: &Proxy, releases: &[EnvoyVersion]) -> Option<String> {
    let too_old = revision.plugin.wasm().and_then(|program| options::too_old(&program.options, proxy.version));
    too_old.or_else(|| match &revision.code {
        Code::Module(module) => module.refusal_by(proxy.version, releases).map(str::to_owned),
        Code::OnProxy(_) | Code::InSpecification => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures;
    use crate::compile::fixtures::{entry, plugin, proxy, revision, template, wasm};
    use crate::model::{Digest, Module, ModuleState, PluginId, PluginKind};

    fn select_one(entry: &PluginEntry, proxy: &Proxy, facts: &ProxyFacts) -> Run {
        let kind = select(proxy, facts, "root", [entry].into_iter(), [].into_iter(), &[]);
        kind.plugins.into_iter().next().unwrap().run
    }

    #[test]
    fn a_ready_plugin_runs_and_one_without_module_is_absent_or_stood_in_for() {
        let ready = entry(revision("shop/a", "one"));
        let mut pending = ready.clone();
        (pending.running, pending.module) = (None, ModuleState::Pending);
        let id = PluginId::new(PluginKind::WasmPlugin, "shop", "a");
        let started = ProxyFacts { stand_ins: [id].into(), ..Default::default() };

        assert!(matches!(select_one(&ready, &proxy("shop"), &started), Run::Revision(_)));
        assert!(matches!(select_one(&pending, &proxy("shop"), &started), Run::StandIn { .. }));
        assert!(matches!(select_one(&pending, &proxy("shop"), &ProxyFacts::default()), Run::Absent));
    }

    #[test]
    fn a_refused_revision_gives_way_to_the_last_good_one_and_then_to_the_stand_in() {
        let (old, new) = (revision("shop/a", "old"), revision("shop/a", "new"));
        let mut entry = entry(new.clone());
        let refuse = |revisions: &[&Arc<PluginRevision>]| ProxyFacts {
            refused: revisions.iter().map(|it| (it.id().clone(), it.revision)).collect(),
            ..Default::default()
        };
        entry.good = vec![old.clone()];
        match select_one(&entry, &proxy("shop"), &refuse(&[&new])) {
            Run::LastGood(good, None) => assert_eq!(good.revision, old.revision),
            other => panic!("{other:?}"),
        }
        assert!(matches!(select_one(&entry, &proxy("shop"), &refuse(&[&new, &old])), Run::StandIn { .. }));
        let middle = revision("shop/a", "middle");
        entry.good = vec![middle.clone(), old.clone()];
        let mut facts = refuse(&[&new]);
        facts.last_good.insert(old.id().clone(), old.revision);
        match select_one(&entry, &proxy("shop"), &facts) {
            Run::LastGood(good, _) => assert_eq!(good.revision, old.revision, "what ran here, not what others took"),
            other => panic!("{other:?}"),
        }
        facts.refused.clear();
        facts.aside.insert((new.id().clone(), new.revision));
        assert!(matches!(select_one(&entry, &proxy("shop"), &facts), Run::LastGood(..)));
        entry.good = vec![new.clone()];
        assert!(matches!(select_one(&entry, &proxy("shop"), &refuse(&[&new])), Run::StandIn { .. }));
    }

    #[test]
    fn room_is_kept_for_what_runs_or_for_the_newest_that_was_accepted() {
        let revisions = ["old", "middle", "new"].map(|module| revision("shop/a", module));
        let mut entry = entry(revisions[2].clone());
        let accepted = |entry: &PluginEntry, refused: &[&Arc<PluginRevision>]| {
            let refused = refused.iter().map(|it| (it.id().clone(), it.revision)).collect();
            let facts = ProxyFacts { refused, ..Default::default() };
            let kind = select(&proxy("shop"), &facts, "root", [entry].into_iter(), [].into_iter(), &[]);
            kind.plugins[0].accepted.as_ref().map(|accepted| accepted.revision)
        };
        assert_eq!(accepted(&entry, &[]), None);
        entry.good = vec![revisions[1].clone(), revisions[0].clone()];
        assert_eq!(accepted(&entry, &[]), Some(revisions[1].revision));
        assert_eq!(accepted(&entry, &[&revisions[1]]), Some(revisions[0].revision));
        entry.good.insert(0, revisions[2].clone());
        assert_eq!(accepted(&entry, &[]), Some(revisions[2].revision));
    }

    #[test]
    fn an_envoy_that_cannot_run_the_new_module_keeps_the_last_good_one() {
        let release = |minor| EnvoyVersion::new(1, minor, 0);
        let module = |content: &str, refusals: Vec<(EnvoyVersion, String)>| {
            let bytes = bytes::Bytes::from(content.to_owned());
            Code::Module(Arc::new(Module { digest: Digest::of(&bytes), bytes, refusals, root_id: None }))
        };
        let of = |code| Arc::new(PluginRevision::new(Arc::new(plugin("shop/a")), code));
        let old = of(module("old", vec![]));
        let new = of(module("new", vec![(release(36), "imports x".to_owned())]));
        let mut entry = entry(new);
        let run_on = |entry: &PluginEntry, minor| {
            let proxy = Proxy { version: Some(release(minor)), ..proxy("shop") };
            run(entry, &proxy, &ProxyFacts::default(), &[release(36), release(40)])
        };
        assert!(matches!(run_on(&entry, 36), Run::Unsupported { reason } if reason == "imports x"));
        entry.good = vec![old.clone()];
        match run_on(&entry, 36) {
            Run::LastGood(good, Some(reason)) => assert_eq!((good.revision, &*reason), (old.revision, "imports x")),
            other => panic!("{other:?}"),
        }
        assert!(matches!(run_on(&entry, 40), Run::Revision(_)));
    }

    #[test]
    fn an_envoy_without_wasm_runs_no_plugin() {
        let mut proxy = proxy("shop");
        proxy.capabilities.wasm = false;
        let run = select_one(&entry(revision("shop/a", "one")), &proxy, &ProxyFacts::default());
        assert!(matches!(run, Run::Unsupported { .. }));
    }

    #[test]
    fn a_disabled_plugin_runs_again_once_its_enabled_successor_is_ready() {
        let mut off = plugin("shop/a");
        off.is_disabled = true;
        let disabled = entry(fixtures::run(off, "one"));
        let mut fetching = disabled.clone();
        (fetching.desired, fetching.module) = (Arc::new(plugin("shop/a")), ModuleState::Pending);
        let enabled = entry(revision("shop/a", "two"));
        let mut switched_off = enabled.clone();
        switched_off.desired = disabled.desired.clone();
        let run = |entry| select_one(entry, &proxy("shop"), &ProxyFacts::default());

        assert!(matches!(run(&disabled), Run::Disabled));
        assert!(matches!(run(&fetching), Run::Disabled));
        assert!(matches!(run(&switched_off), Run::Disabled));
        assert!(matches!(run(&enabled), Run::Revision(_)));
    }

    #[test]
    fn an_envoy_that_is_too_old_for_a_setting_does_not_run_the_plugin() {
        let mut new = plugin("shop/a");
        wasm(&mut new).options.allow_on_headers_stop_iteration = Some(true);
        let mut proxy = proxy("shop");
        let mut run_on = |version| {
            proxy.version = version;
            select_one(&entry(fixtures::run(new.clone(), "one")), &proxy, &ProxyFacts::default())
        };
        match run_on(Some(EnvoyVersion::new(1, 34, 1))) {
            Run::Unsupported { reason } => assert!(reason.ends_with("needs Envoy 1.35, this is 1.34.1"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(run_on(Some(EnvoyVersion::new(1, 35, 0))), Run::Revision(_)));
        assert!(matches!(run_on(None), Run::Revision(_)));
    }

    #[test]
    fn templates_come_in_the_order_in_which_they_win() {
        let mut old = template("shop/z");
        old.created = Some("2020-01-01T00:00:00Z".parse().unwrap());
        let mut new = template("shop/a");
        new.created = Some("2024-01-01T00:00:00Z".parse().unwrap());
        let templates = [template("root/a"), new, old, template("other/a")].map(Arc::new);
        let kind = select(&proxy("shop"), &ProxyFacts::default(), "root", [].into_iter(), templates.iter(), &[]);
        let ids: Vec<_> = kind.templates.iter().map(|template| template.id.to_string()).collect();
        assert_eq!(ids, ["shop/z", "shop/a", "root/a"]);
    }
}
