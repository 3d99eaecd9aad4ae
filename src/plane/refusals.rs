//! What proxies refused, remembered across restarts of the control plane.
//!
//! Envoy remembers the hash of what it refused and would falsely acknowledge the same bytes later, so that a refused
//! revision must not be sent again to the same process (design, section 5, rule 4). Processes that share a node id cannot
//! be told apart when they come back: nothing is remembered of them, and that is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keepsakes::Keepsakes;
use super::scribe::Scribe;
use crate::model::{PluginId, Proxy, Revision};
use crate::xds::beginning;

/// Proxies that are remembered; past it, those that were heard of longest ago are forgotten, which costs each of them
/// one more refusal. With one refusal in Envoy's usual line, a proxy takes some 500 bytes in memory: 5 MB.
const PROXIES: usize = 10_000;

/// Refused revisions kept per proxy, the newest. Should a fleet of 10,000 refuse as many each, in the longest words: 500 MB.
const REVISIONS: usize = 64;

/// Kept of Envoy's words.
const MESSAGE_BYTES: usize = 512;

/// Refused revisions by node id and Envoy build, with Envoy's words.
#[derive(Debug)]
pub struct Refusals {
    kept: Keepsakes,
    proxies: BTreeMap<String, Remembered>,
    /// The keys of `proxies` by when something was last recorded: the first is the first to be forgotten.
    by_age: BTreeSet<(u64, String)>,
}

/// One plugin revision that a proxy refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: PluginId,
    pub revision: Revision,
    pub message: Arc<str>,
    /// What it ran instead.
    pub last_good: Option<Revision>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// Grows with everything that is recorded, for whichever proxy.
    recorded: u64,
    /// Several live proxies have had this id and build.
    #[serde(default)]
    is_shared: bool,
    refusals: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    plugin: String,
    revision: String,
    message: String,
    last_good: Option<String>,
}

impl Refusals {
    /// Reads what was remembered.
    pub fn open(data_dir: &Path, scribe: &Scribe) -> Self {
        let (kept, proxies) = Keepsakes::open::<Remembered>(data_dir.join("refusals"), scribe);
        let by_age = proxies.iter().map(|(key, proxy)| (proxy.recorded, key.clone())).collect();
        Self { kept, proxies, by_age }
    }

    /// What this Envoy process refused before, oldest first.
    pub fn of(&self, proxy: &Proxy) -> Vec<Refusal> {
        let remembered = self.proxies.get(&proxy.remembered_as());
        remembered.into_iter().flat_map(|it| &it.refusals).filter_map(Entry::read).collect()
    }

    /// What proxies ran when they refused something, whether they are connected or not.
    pub fn last_good(&self) -> impl Iterator<Item = (PluginId, Revision)> {
        let entries = self.proxies.values().flat_map(|it| &it.refusals);
        entries.filter_map(|entry| Some((entry.plugin.parse().ok()?, Revision::parse(entry.last_good.as_deref()?)?)))
    }

    /// Others have this proxy's id as well: what is known may be about any of them, and so may what comes.
    pub fn share(&mut self, proxy: &Proxy) {
        let key = proxy.remembered_as();
        if self.proxies.get(&key).is_some_and(|known| known.is_shared) {
            return;
        }
        self.change(&key, |remembered| {
            remembered.is_shared = true;
            remembered.refusals.clear();
        });
    }

    /// This proxy starts as a new process, and no other has its id by now: it may take what the one before refused.
    pub fn forget(&mut self, proxy: &Proxy) {
        self.forget_key(&proxy.remembered_as());
    }

    fn forget_key(&mut self, key: &str) {
        if let Some(proxy) = self.proxies.remove(key) {
            self.by_age.remove(&(proxy.recorded, key.to_owned()));
            self.kept.remove(key);
        }
    }

    pub fn record(&mut self, proxy: &Proxy, refusal: Refusal) {
        let key = proxy.remembered_as();
        if self.proxies.get(&key).is_some_and(|known| known.is_shared) {
            return;
        }
        let entry = Entry::of(&refusal);
        self.change(&key, |remembered| {
            remembered.refusals.retain(|known| !known.is_about(&entry.plugin, &entry.revision));
            if remembered.refusals.len() == REVISIONS {
                remembered.refusals.remove(0);
            }
            remembered.refusals.push(entry);
        });
    }

    /// Changes what is known of a proxy, which is the youngest thereby.
    fn change(&mut self, key: &str, change: impl FnOnce(&mut Remembered)) {
        let now = self.by_age.last().map_or(0, |(newest, _)| newest + 1);
        let remembered = self.proxies.entry(key.to_owned()).or_default();
        self.by_age.remove(&(remembered.recorded, key.to_owned()));
        self.by_age.insert((now, key.to_owned()));
        remembered.recorded = now;
        change(remembered);
        self.kept.put(key, remembered);
        if self.proxies.len() > PROXIES
            && let Some((_, oldest)) = self.by_age.first().cloned()
        {
            self.forget_key(&oldest);
        }
    }

    /// This proxy runs the revision after all.
    pub fn clear(&mut self, proxy: &Proxy, plugin: &PluginId, revision: Revision) {
        let (plugin, revision) = (plugin.to_string(), revision.to_string());
        self.retain(&proxy.remembered_as(), |entry| !entry.is_about(&plugin, &revision));
    }

    /// This plugin is gone.
    pub fn forget_plugin(&mut self, plugin: &PluginId) {
        let plugin = plugin.to_string();
        let names = |it: &Remembered| it.refusals.iter().any(|entry| entry.plugin == plugin);
        let keys: Vec<_> = self.proxies.iter().filter(|(_, it)| names(it)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.retain(key, |entry| entry.plugin != plugin));
    }

    fn retain(&mut self, key: &str, is_kept: impl Fn(&Entry) -> bool) {
        let Some(remembered) = self.proxies.get_mut(key) else { return };
        remembered.refusals.retain(is_kept);
        if remembered.refusals.is_empty() && !remembered.is_shared {
            self.forget_key(key);
        } else {
            self.kept.put(key, remembered);
        }
    }
}

impl Entry {
    fn of(refusal: &Refusal) -> Self {
        let message = &refusal.message;
        Self {
            plugin: refusal.plugin.to_string(),
            revision: refusal.revision.to_string(),
            message: beginning(message, MESSAGE_BYTES).to_owned(),
            last_good: refusal.last_good.map(|revision| revision.to_string()),
        }
    }

    fn is_about(&self, plugin: &str, revision: &str) -> bool {
        self.plugin == plugin && self.revision == revision
    }

    fn read(&self) -> Option<Refusal> {
        Some(Refusal {
            plugin: self.plugin.parse().ok()?,
            revision: Revision::parse(&self.revision)?,
            message: self.message.as_str().into(),
            last_good: self.last_good.as_deref().and_then(Revision::parse),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::scribe;
    use super::*;
    use crate::model::{EnvoyVersion, PluginKind};

    fn proxy(node_id: &str) -> Proxy {
        Proxy { version: Some(EnvoyVersion::new(1, 40, 0)), ..Proxy::named(node_id, "default") }
    }

    fn refusal(plugin: &str, number: usize) -> Refusal {
        Refusal {
            plugin: PluginId::new(PluginKind::WasmPlugin, "shop", plugin),
            revision: Revision::parse(&format!("{number:016x}")).unwrap(),
            message: "no".into(),
            last_good: Revision::parse("0011223344556677"),
        }
    }

    #[test]
    fn a_refusal_survives_a_restart_and_ends_with_the_process_that_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (proxy, refusal) = (proxy("e1"), refusal("auth", 1));
        Refusals::open(folder.path(), &Scribe::at_once()).record(&proxy, refusal.clone());

        let mut refusals = Refusals::open(folder.path(), &Scribe::at_once());
        assert_eq!(refusals.last_good().count(), 1);
        assert_eq!(refusals.of(&proxy), [refusal]);
        refusals.forget(&proxy);
        assert_eq!(Refusals::open(folder.path(), &Scribe::at_once()).of(&proxy), []);
    }

    #[test]
    fn nothing_is_remembered_of_an_id_that_several_proxies_have() {
        let folder = tempfile::tempdir().unwrap();
        let (proxy, refusal) = (proxy("envoy"), refusal("auth", 1));
        let open = || Refusals::open(folder.path(), &Scribe::at_once());
        let mut refusals = open();
        refusals.record(&proxy, refusal.clone());
        refusals.share(&proxy);
        assert_eq!(refusals.of(&proxy), []);
        let mut refusals = open();
        refusals.record(&proxy, refusal.clone());
        refusals.forget_plugin(&refusal.plugin);
        let mut refusals = open();
        refusals.record(&proxy, refusal.clone());
        assert_eq!(open().of(&proxy), []);
        refusals.forget(&proxy);
        refusals.record(&proxy, refusal.clone());
        assert_eq!(open().of(&proxy), [refusal]);
    }

    #[test]
    fn one_proxy_too_many_costs_the_oldest_its_memory_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody writes here.
        let (scribe, _writer) = scribe();
        let mut refusals = Refusals::open(folder.path(), &scribe);
        let of = |refusals: &Refusals, number: usize| refusals.of(&proxy(&format!("e{number}"))).len();
        for number in 0..PROXIES {
            refusals.record(&proxy(&format!("e{number}")), refusal("auth", 1));
        }
        refusals.record(&proxy("e0"), refusal("auth", 2));
        refusals.record(&proxy("new"), refusal("auth", 1));
        let left = [of(&refusals, 0), of(&refusals, 1), of(&refusals, 2), of(&refusals, PROXIES - 1)];
        assert_eq!((left, refusals.proxies.len()), ([2, 0, 1, 1], PROXIES));
    }

    #[test]
    fn a_plugin_that_is_gone_or_accepted_after_all_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (proxy, auth, log) = (proxy("e1"), refusal("auth", 1), refusal("log", 1));
        let mut refusals = Refusals::open(folder.path(), &Scribe::at_once());
        refusals.record(&proxy, auth.clone());
        refusals.record(&proxy, log.clone());
        refusals.clear(&proxy, &auth.plugin, auth.revision);
        assert_eq!(Refusals::open(folder.path(), &Scribe::at_once()).of(&proxy), std::slice::from_ref(&log));
        refusals.forget_plugin(&log.plugin);
        assert_eq!(
            (refusals.by_age.len(), Refusals::open(folder.path(), &Scribe::at_once()).of(&proxy)),
            (0, Vec::new())
        );
    }
}
