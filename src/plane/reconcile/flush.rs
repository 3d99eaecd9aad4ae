//! Gives every touched proxy what it is to run now.
//!
//! Work per change is per group of like proxies: those that agree in all that decides are selected for once, and kinds
//! that are equal are compiled once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{MODULES_WITHIN, Reconciler};
use crate::compile::{Compiled, Kind, KindKey, Run, compile_with, select};
use crate::model::{ModuleDelivery, PluginId, Revision, TemplateId};
use crate::modules::releases;
use crate::plane::proxies::{GroupKey, ProxyKey, Selected};
use crate::snapshot::Part;

impl Reconciler {
    /// Gives every touched proxy what it is to run now.
    pub fn flush(&mut self) {
        if self.memory.holds_until().is_some() {
            // What a restart needs is on the disk before any proxy hears of it (design, section 4).
            return;
        }
        let now = Instant::now();
        if !self.is_open {
            let is_waiting = self.table.is_loading() && now < self.opens_at;
            if !self.is_loaded || is_waiting {
                return;
            }
            self.is_open = true;
            self.touched = self.proxies.iter().map(|(key, _)| key).collect();
        }
        while let Some(first) = self.deadlines.first_entry().filter(|first| *first.key() <= now) {
            self.touched.extend(first.remove());
        }
        // A proxy whose facts change on the way comes round again.
        while !self.touched.is_empty() {
            let mut groups: HashMap<_, (Arc<GroupKey>, Vec<ProxyKey>)> = HashMap::new();
            // In the order in which they came, which is that of what is kept of them and of their streams in memory.
            let mut touched: Vec<_> = std::mem::take(&mut self.touched).into_iter().collect();
            touched.sort_unstable();
            for key in touched {
                let Some((group, is_starting)) = self.proxies.group(key) else { continue };
                let new = || (group.clone(), Vec::new());
                groups.entry((Arc::as_ptr(group), is_starting)).or_insert_with(new).1.push(key);
            }
            for ((_, is_starting), (group, members)) in groups {
                self.flush_group(&group, &members, is_starting, now);
            }
        }
        let kinds = self.kinds.len();
        self.kinds.retain(|_, compiled| compiled.strong_count() > 0);
        if self.kinds.len() < kinds {
            self.filters.tidy();
        }
        if self.kinds.len() < kinds && !self.reported_problems.is_empty() {
            // A problem that is nowhere any more is news when it comes back.
            let compiled: Vec<_> = self.kinds.values().filter_map(Weak::upgrade).collect();
            let told = compiled.iter().flat_map(|it| &it.problems).map(|problem| format!("{problem:?}")).collect();
            self.reported_problems = told;
        }
        if std::mem::take(&mut self.has_spare_revisions) {
            self.let_go_of_revisions();
        }
    }

    /// Good revisions beyond the newest stay only while a proxy runs them, or is known to have run them when it was
    /// last heard of: a refusal there must not replace what works.
    fn let_go_of_revisions(&mut self) {
        let spare: HashSet<_> = self.table.spare().map(ToString::to_string).collect();
        if spare.is_empty() {
            return;
        }
        let (mut seen, mut before) = (HashSet::new(), &[][..]);
        let mut in_use: HashSet<(PluginId, Revision)> = self.refusals.last_good().collect();
        for (_, connected) in self.proxies.iter() {
            in_use.extend(connected.facts.last_good.iter().map(|(plugin, revision)| (plugin.clone(), *revision)));
            // Almost all proxies hold what the one before them does, and the others what somebody does.
            let accepted = connected.progress.accepted();
            for (place, resource) in accepted.iter().enumerate() {
                let is_as_before = before.get(place).is_some_and(|before| Arc::ptr_eq(before, resource));
                if !is_as_before && seen.insert(Arc::as_ptr(resource)) {
                    let identify = |part: &Part| Some((part.owner.parse().ok()?, Revision::parse(&part.revision)?));
                    let parts = resource.parts.iter().filter(|part| spare.contains(&*part.owner));
                    in_use.extend(parts.filter_map(identify));
                }
            }
            before = accepted;
        }
        for plugin in self.table.let_go(&in_use) {
            self.proxies.forget_selected();
            self.memory.keep_plugin(&plugin, &self.table.remember(&plugin));
        }
    }

    fn flush_group(&mut self, group: &GroupKey, members: &[ProxyKey], is_starting: bool, now: Instant) {
        if let Some((key, compiled)) = self.selected(group, is_starting) {
            for member in members.iter().filter(|_| is_starting) {
                self.proxies.get_mut(*member).into_iter().for_each(|connected| connected.is_starting = false);
            }
            return self.serve(members, &key, &compiled);
        }
        let Some(kind) = members.first().and_then(|key| self.select(*key)) else { return };
        let absent = absent(&kind);
        if is_starting {
            if let Some(until) = self.waits_until(&absent).filter(|until| now < *until) {
                self.deadlines.entry(until).or_default().extend(members);
                return;
            }
            for key in members {
                let Some(connected) = self.proxies.get_mut(*key) else { continue };
                connected.is_starting = false;
                connected.facts.stand_ins = absent.clone();
                connected.regroup();
            }
            if !absent.is_empty() {
                self.touched.extend(members);
                return;
            }
        }
        let key = kind.key();
        let compiled = self.compiled(&key, &kind);
        let selected = Selected { kind: key.clone(), compiled: Arc::downgrade(&compiled), is_whole: absent.is_empty() };
        self.proxies.select(group, selected);
        self.serve(members, &key, &compiled);
    }

    /// What the group is served, where that is known: who comes into a fleet is not selected for anew. A starting proxy
    /// is, where there is something that it may wait for.
    fn selected(&self, group: &GroupKey, is_starting: bool) -> Option<(KindKey, Arc<Compiled>)> {
        let selected = self.proxies.selected(group).filter(|selected| selected.is_whole || !is_starting)?;
        Some((selected.kind.clone(), selected.compiled.upgrade()?))
    }

    /// Serves this to those that have something else.
    fn serve(&mut self, members: &[ProxyKey], key: &KindKey, compiled: &Arc<Compiled>) {
        let waits = |id: &PluginId| self.table.get(id).is_some_and(|entry| entry.running.is_none());
        let mut published = 0;
        // One visit for each: with thousands, none of them is in the processor's cache.
        for member in members {
            let Some(connected) = self.proxies.get_mut(*member) else { continue };
            if !connected.facts.stand_ins.iter().all(waits) {
                // A plugin that has a revision by now, or is gone, is stood in for no longer: should it come again, these
                // proxies were running before it.
                connected.facts.stand_ins.retain(waits);
                connected.regroup();
            }
            if connected.kind.as_ref() == Some(key) {
                continue;
            }
            published += 1;
            let is_new = connected.kind.replace(key.clone()).is_none();
            if connected.progress.expect(compiled.clone()) {
                connected.regroup();
                self.touched.insert(*member);
            }
            connected.serve(&compiled.snapshot);
            // A proxy that has just come does not make the last change slow.
            if !is_new && !connected.progress.is_settled() {
                self.pushes.sent(*member);
            }
        }
        if published > 0 {
            tracing::debug!(proxies = published, "snapshot published");
        }
    }

    pub(in crate::plane) fn select(&self, key: ProxyKey) -> Option<Kind> {
        let connected = self.proxies.get(key)?;
        let own = &*connected.proxy.namespace;
        let root = (self.root_namespace != own).then_some(&*self.root_namespace);
        let plugins = [Some(own), root].into_iter().flatten().flat_map(|namespace| self.table.in_namespace(namespace));
        let in_reach = |id: &TemplateId| *id.namespace == *own || *id.namespace == *self.root_namespace;
        let templates = self.loaded.templates.iter().filter(|(id, _)| in_reach(id)).map(|(_, template)| template);
        let kind = select(&connected.proxy, &connected.facts, &self.root_namespace, plugins, templates, releases());
        let is_by_digest = connected.facts.delivery == ModuleDelivery::Digest;
        let server = self.deliveries.server().filter(|_| is_by_digest).cloned();
        Some(Kind { by_digest: server, ..kind })
    }

    fn compiled(&mut self, key: &KindKey, kind: &Kind) -> Arc<Compiled> {
        if let Some(compiled) = self.kinds.get(key).and_then(Weak::upgrade) {
            return compiled;
        }
        let compiled = Arc::new(compile_with(kind, &self.filters));
        for problem in &compiled.problems {
            if self.reported_problems.insert(format!("{problem:?}")) {
                tracing::warn!(resource = problem.resource, reason = problem.reason, "problem found");
            }
        }
        self.kinds.insert(key.clone(), Arc::downgrade(&compiled));
        compiled
    }

    /// Until when a starting proxy waits for these plugins: for those that are new, not for those that failed long ago.
    fn waits_until(&self, absent: &BTreeSet<PluginId>) -> Option<Instant> {
        let first_seen = absent.iter().filter_map(|id| self.table.first_seen(id)).max()?;
        Some(Instant::from_std(first_seen) + MODULES_WITHIN)
    }
}

/// Plugins that would be nowhere on this kind for want of a module.
fn absent(kind: &Kind) -> BTreeSet<PluginId> {
    let is_absent = |run: &Run| matches!(run, Run::Absent);
    kind.plugins.iter().filter(|member| is_absent(&member.run)).map(|member| member.plugin.id.clone()).collect()
}
