//! Live proxies of one node id, told apart by number and found by address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ProxyKey;
use crate::snapshot::ResourceType;
use crate::xds::Service;

/// Live proxies of one node id. There are fleets in which all have the same.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    /// Lowest numbers that were given back.
    pub(super) free: BTreeSet<usize>,
    /// Numbers given out or given back.
    numbers: usize,
    /// By address and by the services of their streams, of which there are few different sets.
    alike: BTreeSet<(Option<IpAddr>, Services, ProxyKey)>,
}

/// A set of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Services(u8);

impl Services {
    fn contains(self, service: Service) -> bool {
        self.0 & bit(service) != 0
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().map(bit).fold(0, |all, one| all | one))
    }
}

fn bit(service: Service) -> u8 {
    1 << match service {
        Service::Ads => 0,
        Service::Single(ResourceType::Cluster) => 1,
        Service::Single(ResourceType::Endpoint) => 2,
        Service::Single(ResourceType::ExtensionConfig) => 3,
        Service::Single(ResourceType::Listener) => 4,
        Service::Single(ResourceType::Route) => 5,
    }
}

impl Namesakes {
    pub(super) fn is_empty(&self) -> bool {
        self.alike.is_empty()
    }

    /// Whether they are several Envoys indeed. One that comes back while its former connection has not been found dead
    /// looks like two of them at one address.
    pub(super) fn are_several(&self) -> bool {
        let address = |it: Option<&(Option<IpAddr>, Services, ProxyKey)>| it.map(|(address, ..)| *address);
        self.alike.len() > 2 || address(self.alike.first()) != address(self.alike.last())
    }

    /// The oldest proxy at this address that lacks this service.
    pub(super) fn lacking(&self, service: Service, peer: Option<IpAddr>) -> Option<ProxyKey> {
        let mut oldest = None;
        let mut from = Services::default();
        // The first of each set of services is its oldest.
        while let Some((_, services, key)) =
            self.alike.range((peer, from, ProxyKey(0))..).next().filter(|(address, ..)| *address == peer)
        {
            if !services.contains(service) {
                oldest = oldest.into_iter().chain([*key]).min();
            }
            from = Services(services.0 + 1);
        }
        oldest
    }

    /// The lowest number that nobody has, from 1.
    pub(super) fn take_number(&mut self) -> usize {
        self.free.pop_first().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers
        })
    }

    pub(super) fn enter(&mut self, key: ProxyKey, peer: Option<IpAddr>, services: Services) {
        self.alike.insert((peer, services, key));
    }

    pub(super) fn leave(&mut self, key: ProxyKey, peer: Option<IpAddr>, services: Services) {
        self.alike.remove(&(peer, services, key));
    }
}
