//! Connected proxies, and the index from a change to those it can touch.
//!
//! Pure. One writer: the reconciler.

mod groups;
mod namesakes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

pub use groups::{GroupKey, Selected};

use groups::Groups;
use namesakes::{Namesakes, Services};

use crate::compile::KindKey;
use crate::model::{Plugin, Proxy, ProxyFacts, ProxyTemplate, Selector, WorkloadTarget};
use crate::rollout::Progress;
use crate::snapshot::Snapshot;
use crate::xds::{Hello, Protocol, Service, SnapshotSender, StreamId};

/// One Envoy: its stream, or its several streams where it uses the separate services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyKey(u64);

#[cfg(test)]
impl ProxyKey {
    pub fn of(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Debug)]
pub struct ProxyStream {
    pub service: Service,
    pub protocol: Protocol,
    pub snapshots: SnapshotSender,
}

/// A connected proxy.
#[derive(Debug)]
pub struct Connected {
    pub proxy: Proxy,
    /// The node id; proxies that share one are told apart by `#2`, `#3` and so on.
    pub id: String,
    pub facts: ProxyFacts,
    pub streams: BTreeMap<StreamId, ProxyStream>,
    pub progress: Progress,
    /// Its Envoy has just started, and nothing was served to it yet.
    pub is_starting: bool,
    /// What it is served now.
    pub kind: Option<KindKey>,
    /// Why modules travel inline, where they do, or why one that waits cannot be fetched.
    pub delivery_reason: &'static str,
    /// That of `proxy` and `facts`; absent until it is looked for.
    group: Option<Arc<GroupKey>>,
    peer: Option<IpAddr>,
    number: usize,
}

/// All connected proxies.
#[derive(Debug, Default)]
pub struct Proxies {
    proxies: BTreeMap<ProxyKey, Connected>,
    streams: HashMap<StreamId, ProxyKey>,
    by_namespace: HashMap<String, HashSet<ProxyKey>>,
    by_label: HashMap<(String, String), HashSet<ProxyKey>>,
    by_node_id: HashMap<String, Namesakes>,
    groups: Groups,
    next_key: u64,
}

impl Proxies {
    pub fn iter(&self) -> impl Iterator<Item = (ProxyKey, &Connected)> {
        self.proxies.iter().map(|(key, connected)| (*key, connected))
    }

    pub fn get(&self, key: ProxyKey) -> Option<&Connected> {
        self.proxies.get(&key)
    }

    pub fn get_mut(&mut self, key: ProxyKey) -> Option<&mut Connected> {
        self.proxies.get_mut(&key)
    }

    /// The group of a proxy, the same in memory for all that are alike, and whether it is starting.
    pub fn group(&mut self, key: ProxyKey) -> Option<(&Arc<GroupKey>, bool)> {
        let proxies = self.proxies.len();
        let Connected { group, proxy, facts, is_starting, .. } = self.proxies.get_mut(&key)?;
        Some((group.get_or_insert_with(|| self.groups.of(proxy, facts, proxies)), *is_starting))
    }

    /// What the group was selected for, since plugins and templates are what they are.
    pub fn selected(&self, group: &GroupKey) -> Option<&Selected> {
        self.groups.selected(group)
    }

    pub fn select(&mut self, group: &GroupKey, selected: Selected) {
        self.groups.select(group, selected);
    }

    /// To be called after every change of what is selected from: plugins, their revisions, templates.
    pub fn forget_selected(&mut self) {
        self.groups.forget_selected();
    }

    /// To be called after every change of selectors, with the keys of labels that they ask for now.
    pub fn ask_for(&mut self, asked: &BTreeSet<&str>) {
        if self.groups.ask_for(asked) {
            self.proxies.values_mut().for_each(|connected| connected.group = None);
        }
    }

    /// Whether live proxies share this node id, so that it does not tell which of them one is.
    pub fn are_several(&self, node_id: &str) -> bool {
        self.by_node_id.get(node_id).is_some_and(Namesakes::are_several)
    }

    pub fn of_stream(&self, stream: StreamId) -> Option<ProxyKey> {
        self.streams.get(&stream).copied()
    }

    /// Adds a stream: to the proxy that it belongs to, or as a new one. Streams of the separate services that share
    /// node id and address are one Envoy as long as each service is there once.
    pub fn connect(&mut self, stream: StreamId, hello: Hello, snapshots: SnapshotSender) -> ProxyKey {
        let peer = hello.peer.map(|peer| peer.ip());
        let namesakes = self.by_node_id.get(&hello.proxy.node_id);
        let sibling = namesakes.and_then(|namesakes| namesakes.lacking(hello.service, peer));
        let added = ProxyStream { service: hello.service, protocol: hello.protocol, snapshots };
        let key = match sibling {
            Some(key) => {
                let mut capabilities = hello.proxy.capabilities;
                if let Some(connected) = self.proxies.get_mut(&key) {
                    capabilities.chain &= connected.proxy.capabilities.chain;
                    if capabilities != connected.proxy.capabilities {
                        // What the others were served is not for this stream: all are served anew.
                        connected.kind = None;
                    }
                    connected.proxy.capabilities = capabilities;
                    connected.regroup();
                }
                key
            }
            None => self.add(hello.proxy, hello.is_new_process, peer),
        };
        self.streams.insert(stream, key);
        self.change_streams(key, |streams| drop(streams.insert(stream, added)));
        key
    }

    /// Changes the streams of a proxy, and with them its place among its namesakes.
    fn change_streams(&mut self, key: ProxyKey, change: impl FnOnce(&mut BTreeMap<StreamId, ProxyStream>)) {
        let Some(connected) = self.proxies.get_mut(&key) else { return };
        let Some(namesakes) = self.by_node_id.get_mut(&connected.proxy.node_id) else { return };
        namesakes.leave(key, connected.peer, connected.services());
        change(&mut connected.streams);
        namesakes.enter(key, connected.peer, connected.services());
    }

    fn add(&mut self, proxy: Proxy, is_new_process: bool, peer: Option<IpAddr>) -> ProxyKey {
        self.next_key += 1;
        let key = ProxyKey(self.next_key);
        let number = self.by_node_id.entry(proxy.node_id.clone()).or_default().take_number();
        let id = match number {
            1 => proxy.node_id.clone(),
            _ => format!("{}#{number}", proxy.node_id),
        };
        // A fleet that shares one id is told of now and then, not once per proxy.
        if number > 1 && number.is_power_of_two() {
            tracing::warn!(node = proxy.node_id, number, "another live proxy has the same node id");
        }
        self.by_namespace.entry(proxy.namespace.clone()).or_default().insert(key);
        for label in &proxy.labels {
            self.by_label.entry((label.0.clone(), label.1.clone())).or_default().insert(key);
        }
        let connected = Connected {
            group: None,
            proxy,
            id,
            facts: ProxyFacts::default(),
            streams: BTreeMap::new(),
            progress: Progress::default(),
            is_starting: is_new_process,
            kind: None,
            delivery_reason: "",
            peer,
            number,
        };
        self.proxies.insert(key, connected);
        key
    }

    /// Removes a stream, and its proxy with the last one, which is returned.
    pub fn disconnect(&mut self, stream: StreamId) -> Option<Connected> {
        let key = self.streams.remove(&stream)?;
        self.change_streams(key, |streams| drop(streams.remove(&stream)));
        if !self.proxies.get(&key)?.streams.is_empty() {
            return None;
        }
        let connected = self.proxies.remove(&key)?;
        if let Some(namesakes) = self.by_node_id.get_mut(&connected.proxy.node_id) {
            namesakes.leave(key, connected.peer, connected.services());
            namesakes.free.insert(connected.number);
            if namesakes.is_empty() {
                self.by_node_id.remove(&connected.proxy.node_id);
            }
        }
        connected.group.iter().for_each(|group| self.groups.leave(group));
        leave(&mut self.by_namespace, &connected.proxy.namespace, key);
        for (label, value) in &connected.proxy.labels {
            leave(&mut self.by_label, &(label.clone(), value.clone()), key);
        }
        Some(connected)
    }

    /// Proxies that a plugin can concern. A superset: selection decides.
    pub fn touched_by_plugin(&self, plugin: &Plugin, root_namespace: &str) -> HashSet<ProxyKey> {
        let selector = match &plugin.target {
            WorkloadTarget::Labels(selector) => Some(selector),
            WorkloadTarget::Everything | WorkloadTarget::References(_) => None,
        };
        self.touched(&plugin.id.namespace, selector, root_namespace)
    }

    /// Proxies that a template can concern.
    pub fn touched_by_template(&self, template: &ProxyTemplate, root_namespace: &str) -> HashSet<ProxyKey> {
        self.touched(&template.id.namespace, template.selector.as_ref(), root_namespace)
    }

    fn touched(&self, namespace: &str, selector: Option<&Selector>, root_namespace: &str) -> HashSet<ProxyKey> {
        let in_namespace = (namespace != root_namespace).then(|| self.by_namespace.get(namespace));
        let mut sets: Vec<Option<&HashSet<ProxyKey>>> = in_namespace.into_iter().collect();
        for (label, value) in selector.iter().flat_map(|selector| &selector.0) {
            sets.push(self.by_label.get(&(label.clone(), value.clone())));
        }
        let Some(sets) = sets.into_iter().collect::<Option<Vec<_>>>() else { return HashSet::new() };
        let Some(smallest) = sets.iter().min_by_key(|set| set.len()) else {
            return self.proxies.keys().copied().collect();
        };
        smallest.iter().filter(|key| sets.iter().all(|set| set.contains(key))).copied().collect()
    }
}

impl Connected {
    /// To be called after every change of `proxy`, `facts` or what `progress` tells of them.
    pub fn regroup(&mut self) {
        self.progress.tell(&mut self.facts);
        self.group = None;
    }

    fn services(&self) -> Services {
        self.streams.values().map(|stream| stream.service).collect()
    }

    /// Serves this snapshot from now on; streams that are behind will see only the latest.
    pub fn serve(&self, snapshot: &Arc<Snapshot>) {
        for stream in self.streams.values() {
            stream.snapshots.send(snapshot.clone());
        }
    }
}

fn leave<K: Eq + Hash>(index: &mut HashMap<K, HashSet<ProxyKey>>, entry: &K, key: ProxyKey) {
    if let Some(members) = index.get_mut(entry) {
        members.remove(&key);
        if members.is_empty() {
            index.remove(entry);
        }
    }
}
