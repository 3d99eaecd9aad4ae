//! What proxies refused, remembered across restarts of the control plane.
//!
//! Envoy remembers the hash of what it refused and would falsely acknowledge the same bytes later, so that a refused
//! revision must not be sent again to the same process (design, section 5, rule 4).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::keepsakes::Keepsakes;
use crate::model::{EnvoyVersion, PluginId, Proxy, Revision};

/// A proxy with something to remember takes some 300 bytes: 3 MB at most. Past it the memory starts anew, which costs
/// each of them one more refusal.
const PROXIES: usize = 10_000;

/// Refused revisions kept per proxy: enough to outlast any sensible sequence of edits.
const REVISIONS: usize = 32;

/// Refused revisions by node id and Envoy build, with Envoy's words.
#[derive(Debug)]
pub struct Refusals {
    kept: Keepsakes,
    proxies: BTreeMap<String, Vec<Refusal>>,
}

/// One plugin revision that a proxy refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Refusal {
    plugin: String,
    revision: String,
    message: String,
}

impl Refusals {
    /// Reads what was remembered.
    pub fn open(data_dir: &Path) -> Self {
        let (kept, proxies) = Keepsakes::open(data_dir.join("refusals"));
        Self { kept, proxies }
    }

    /// What this Envoy process refused before.
    pub fn of(&self, proxy: &Proxy) -> Vec<(PluginId, Revision, String)> {
        let refusals = self.proxies.get(&key(proxy)).into_iter().flatten();
        refusals
            .filter_map(|refusal| {
                Some((refusal.plugin.parse().ok()?, Revision::parse(&refusal.revision)?, refusal.message.clone()))
            })
            .collect()
    }

    /// This proxy starts as a new process: it may take what the one before refused.
    pub fn forget(&mut self, proxy: &Proxy) {
        if self.proxies.remove(&key(proxy)).is_some() {
            self.kept.retain(|kept| self.proxies.contains_key(kept));
        }
    }

    pub fn record(&mut self, proxy: &Proxy, plugin: &PluginId, revision: Revision, message: &str) {
        if self.proxies.len() >= PROXIES {
            self.proxies.clear();
            self.kept.retain(|_| false);
        }
        let key = key(proxy);
        let refusals = self.proxies.entry(key.clone()).or_default();
        let (plugin, revision) = (plugin.to_string(), revision.to_string());
        if refusals.iter().any(|known| known.plugin == plugin && known.revision == revision) {
            return;
        }
        if refusals.len() >= REVISIONS {
            refusals.remove(0);
        }
        refusals.push(Refusal { plugin, revision, message: message.to_owned() });
        self.kept.put(&key, refusals);
    }
}

fn key(proxy: &Proxy) -> String {
    let build = proxy.version.map(|version: EnvoyVersion| version.to_string()).unwrap_or_default();
    format!("{} {build}", proxy.node_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Capabilities, PluginKind};

    #[test]
    fn a_refusal_survives_a_restart_and_ends_with_the_process_that_refused() {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy {
            node_id: "e1".into(),
            cluster: String::new(),
            namespace: "default".into(),
            labels: BTreeMap::new(),
            version: Some(EnvoyVersion::new(1, 40, 0)),
            capabilities: Capabilities::default(),
        };
        let plugin = PluginId::new(PluginKind::WasmPlugin, "shop", "auth");
        let revision = Revision::parse("0011223344556677").unwrap();
        Refusals::open(folder.path()).record(&proxy, &plugin, revision, "no");

        let mut refusals = Refusals::open(folder.path());
        assert_eq!(refusals.of(&proxy), [(plugin, revision, "no".to_owned())]);
        refusals.forget(&proxy);
        assert_eq!(Refusals::open(folder.path()).of(&proxy), []);
    }
}
