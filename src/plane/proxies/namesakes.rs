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
        let lacking = self.oldest_at(peer).filter(|(services, _)| !services.contains(service));
        lacking.map(|(_, key)| key).min()
    }

    /// The oldest proxy at this address with each set of services.
    fn oldest_at(&self, peer: Option<IpAddr>) -> impl Iterator<Item = (Services, ProxyKey)> {
        let mut from = Some(Services::default());
        std::iter::from_fn(move || {
            // The first of each set of services is its oldest.
            let (address, services, key) = *self.alike.range((peer, from?, ProxyKey(0))..).next()?;
            from = services.0.checked_add(1).map(Services);
            (address == peer).then_some((services, key))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_finds_its_proxy_among_thousands_with_a_look_at_each_set_of_services() {
        let mut namesakes = Namesakes::default();
        let here = Some([127, 0, 0, 1].into());
        let single = Service::Single;
        let sets: [&[Service]; 3] = [
            &[Service::Ads],
            &[single(ResourceType::Cluster)],
            &[single(ResourceType::Cluster), single(ResourceType::Listener)],
        ];
        for key in 0..6_000 {
            let services = sets[key % sets.len()].iter().copied().collect();
            namesakes.enter(ProxyKey(key as u64 + 1), here, services);
        }
        namesakes.enter(ProxyKey(0), Some([127, 0, 0, 2].into()), Services::default());
        assert_eq!(namesakes.oldest_at(here).count(), sets.len());
        assert_eq!(namesakes.lacking(single(ResourceType::Listener), here), Some(ProxyKey(1)));
        assert_eq!(namesakes.lacking(Service::Ads, here), Some(ProxyKey(2)));
        assert_eq!(namesakes.lacking(Service::Ads, None), None);
    }
}
