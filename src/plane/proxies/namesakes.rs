//! Live proxies of one node id, told apart by number and found by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ProxyKey;
use crate::xds::Service;

/// Live proxies of one node id. There are fleets in which all have the same.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    /// Lowest numbers that were given back.
    pub(super) free: BTreeSet<usize>,
    /// Numbers given out or given back.
    numbers: usize,
    /// By address and by the services of their streams, of which there are few different sets.
    pub(super) alike: BTreeMap<(Option<IpAddr>, BTreeSet<Service>), BTreeSet<ProxyKey>>,
}

impl Namesakes {
    /// The oldest proxy at this address that lacks this service.
    pub(super) fn lacking(&self, service: Service, peer: Option<IpAddr>) -> Option<ProxyKey> {
        let here = self.alike.range((peer, BTreeSet::new())..).take_while(|((other, _), _)| *other == peer);
        let lacking = here.filter(|((_, services), _)| !services.contains(&service));
        lacking.filter_map(|(_, keys)| keys.first()).min().copied()
    }

    /// The lowest number that nobody has, from 1.
    pub(super) fn take_number(&mut self) -> usize {
        self.free.pop_first().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers
        })
    }

    pub(super) fn enter(&mut self, key: ProxyKey, peer: Option<IpAddr>, services: BTreeSet<Service>) {
        self.alike.entry((peer, services)).or_default().insert(key);
    }

    pub(super) fn leave(&mut self, key: ProxyKey, peer: Option<IpAddr>, services: BTreeSet<Service>) {
        let alike = (peer, services);
        if let Some(keys) = self.alike.get_mut(&alike) {
            keys.remove(&key);
            if keys.is_empty() {
                self.alike.remove(&alike);
            }
        }
    }
}
