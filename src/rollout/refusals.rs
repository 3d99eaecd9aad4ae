//! The plugin revisions that one proxy refused, in its words.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{PluginId, Revision};

/// Kept per plugin, the newest: more than there are revisions of it that could be sent, so that what is forgotten costs
/// at most one more refusal in as many edits, and never a loop.
const REVISIONS: usize = 32;

/// Bounded by the plugins that there are: those that are gone are to be forgotten.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Of each plugin, oldest first.
    by_plugin: BTreeMap<PluginId, Vec<(Revision, Arc<str>)>>,
}

impl Refusals {
    pub fn is_empty(&self) -> bool {
        self.by_plugin.is_empty()
    }

    pub fn get(&self, plugin: &PluginId, revision: Revision) -> Option<&Arc<str>> {
        let known = self.by_plugin.get(plugin)?.iter().find(|(known, _)| *known == revision);
        known.map(|(_, message)| message)
    }

    pub fn insert(&mut self, plugin: PluginId, revision: Revision, message: Arc<str>) {
        let revisions = self.by_plugin.entry(plugin).or_default();
        revisions.retain(|(known, _)| *known != revision);
        if revisions.len() == REVISIONS {
            revisions.remove(0);
        }
        revisions.push((revision, message));
    }

    /// Whether it was there.
    pub fn remove(&mut self, plugin: &PluginId, revision: Revision) -> bool {
        let Some(revisions) = self.by_plugin.get_mut(plugin) else { return false };
        let before = revisions.len();
        revisions.retain(|(known, _)| *known != revision);
        let was_there = revisions.len() < before;
        if revisions.is_empty() {
            self.by_plugin.remove(plugin);
        }
        was_there
    }

    /// Whether there were any.
    pub fn forget(&mut self, plugin: &PluginId) -> bool {
        self.by_plugin.remove(plugin).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PluginId, Revision)> {
        self.by_plugin.iter().flat_map(|(plugin, of)| of.iter().map(move |(revision, _)| (plugin, *revision)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PluginKind;

    #[test]
    fn a_proxy_that_refuses_every_edit_of_a_year_is_remembered_for_the_last_of_them() {
        let auth = PluginId::new(PluginKind::WasmPlugin, "shop", "auth");
        let revision = |number: usize| Revision::parse(&format!("{number:016x}")).unwrap();
        let mut refusals = Refusals::default();
        (0..1000).for_each(|number| refusals.insert(auth.clone(), revision(number), "no".into()));
        assert_eq!(refusals.iter().count(), REVISIONS);
        assert_eq!((refusals.get(&auth, revision(999)).is_some(), refusals.get(&auth, revision(0))), (true, None));
        assert!(refusals.remove(&auth, revision(999)) && !refusals.remove(&auth, revision(999)));
        assert!(refusals.forget(&auth) && refusals.is_empty());
    }
}
