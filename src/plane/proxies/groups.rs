//! Proxies that agree in all that decides what they are served, and what that was found to be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use crate::compile::{Compiled, KindKey};
use crate::model::{Capabilities, EnvoyVersion, Proxy, ProxyFacts};

/// All of a proxy that decides what it is served, so that proxies which agree in it are looked at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    namespace: String,
    /// Those that some selector asks for.
    labels: BTreeMap<String, String>,
    capabilities: Capabilities,
    version: Option<EnvoyVersion>,
    facts: ProxyFacts,
}

/// What the proxies of a group are served.
#[derive(Clone, Debug)]
pub struct Selected {
    pub kind: KindKey,
    pub compiled: Weak<Compiled>,
    /// No plugin is absent from it for want of a module.
    pub is_whole: bool,
}

/// Groups that nobody is in any more, before they are looked for.
const SPARE_GROUPS: usize = 1024;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// With what they were selected for, and in which state of plugins and templates.
    groups: HashMap<Arc<GroupKey>, Option<(u64, Selected)>>,
    /// Counts the states of plugins and templates.
    state: u64,
    /// Keys of labels that some selector asks for.
    asked: BTreeSet<String>,
}

impl Groups {
    /// The group of such a proxy: the same in memory for all that are alike.
    pub(super) fn of(&mut self, proxy: &Proxy, facts: &ProxyFacts, proxies: usize) -> Arc<GroupKey> {
        let labels = self.asked.iter().filter_map(|key| proxy.labels.get_key_value(key));
        let key = GroupKey {
            namespace: proxy.namespace.clone(),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            capabilities: proxy.capabilities,
            version: proxy.version,
            facts: facts.clone(),
        };
        if let Some((group, _)) = self.groups.get_key_value(&key) {
            return group.clone();
        }
        let group = Arc::new(key);
        self.groups.insert(group.clone(), None);
        if self.groups.len() > SPARE_GROUPS + proxies {
            self.groups.retain(|group, _| Arc::strong_count(group) > 1);
        }
        group
    }

    /// A proxy left the group.
    pub(super) fn leave(&mut self, group: &Arc<GroupKey>) {
        if Arc::strong_count(group) == 2 {
            self.groups.remove(group);
        }
    }

    /// Plugins or templates are others now.
    pub(super) fn forget_selected(&mut self) {
        self.state += 1;
    }

    pub(super) fn selected(&self, group: &GroupKey) -> Option<&Selected> {
        let (state, selected) = self.groups.get(group)?.as_ref()?;
        (*state == self.state).then_some(selected)
    }

    pub(super) fn select(&mut self, group: &GroupKey, selected: Selected) {
        if let Some(known) = self.groups.get_mut(group) {
            *known = Some((self.state, selected));
        }
    }

    /// Whether these keys of labels, which selectors ask for now, are others than before: then no group is one any more.
    pub(super) fn ask_for(&mut self, keys: &BTreeSet<&str>) -> bool {
        let is_same = self.asked.iter().map(String::as_str).eq(keys.iter().copied());
        if !is_same {
            self.asked = keys.iter().map(ToString::to_string).collect();
            self.groups.clear();
        }
        !is_same
    }
}
