//! Which addresses a fetch may dial. Pure.
//!
//! A plugin's URL is another person's text: without this, it could make the control plane ask the cloud's metadata
//! service for keys. Addresses within addresses (IPv4 in IPv6, NAT64, 6to4, Teredo) are judged as the inner one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What kind of address it is, as far as it matters who may dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Public,
    /// Of an organisation's own networks.
    Private,
    Loopback,
    /// Never dialled; with the reason.
    Never(&'static str),
}

const METADATA: &str = "a metadata service of a cloud";
const LINK_LOCAL: &str = "a link-local address, as metadata services of clouds have";
const NO_HOST: &str = "no address of a host";

/// Metadata services outside of the link-local ranges.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [(Ipv6Addr, u8); 2] =
    [(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32), (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128)];

pub fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Class {
    let [first, second, ..] = address.octets();
    match () {
        () if METADATA_V4.contains(&address) => Class::Never(METADATA),
        () if address.is_link_local() => Class::Never(LINK_LOCAL),
        () if first == 0 || address.is_multicast() || address.is_broadcast() => Class::Never(NO_HOST),
        () if address.is_loopback() => Class::Loopback,
        // Shared address space (carriers, some clouds' own services) and the networks for benchmarks.
        () if address.is_private()
            || (first == 100 && second & 0xc0 == 64)
            || (first == 198 && second & 0xfe == 18) =>
        {
            Class::Private
        }
        () => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.iter().any(|(network, bits)| is_in_v6(address, *network, *bits)) {
        return Class::Never(METADATA);
    }
    if let Some(inner) = inner(address) {
        return class_v4(inner);
    }
    match address.segments()[0] {
        _ if address.is_loopback() => Class::Loopback,
        _ if address.is_unspecified() || address.is_multicast() => Class::Never(NO_HOST),
        first if first & 0xffc0 == 0xfe80 => Class::Never(LINK_LOCAL),
        // Unique local, and site local before it.
        first if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => Class::Private,
        _ => Class::Public,
    }
}

/// The IPv4 address that a packet to this one may end at.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match parts {
        // Mapped, and compatible but for `::` and `::1`.
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(v4(high, low)),
        // NAT64, and its local networks with the address at the end.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(v4(!high, !low)),
        _ => None,
    }
}

fn is_in_v6(address: Ipv6Addr, network: Ipv6Addr, bits: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    address.to_bits() & mask == network.to_bits() & mask
}

/// An address range that the operator opened, such as `10.1.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The text is no `ADDRESS` or `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address range such as 10.1.0.0/16 or fd12::/16")]
pub struct InvalidNetwork;

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                address.to_bits() & mask == network.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => is_in_v6(address, network, self.bits),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| InvalidNetwork)?;
        if bits > all { Err(InvalidNetwork) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Class {
        class(address.parse().unwrap())
    }

    #[test]
    fn metadata_services_are_never_dialled_however_they_are_written() {
        let addresses = [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ];
        for address in addresses {
            assert!(matches!(of(address), Class::Never(_)), "{address}: {:?}", of(address));
        }
    }

    #[test]
    fn the_rest_is_loopback_private_or_public() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert_eq!(of(address), Class::Loopback, "{address}");
        }
        for address in
            ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "198.19.0.1", "fd12::1", "::ffff:10.0.0.1"]
        {
            assert_eq!(of(address), Class::Private, "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::101:101", "192.0.2.1"] {
            assert_eq!(of(address), Class::Public, "{address}");
        }
    }

    #[test]
    fn a_range_holds_its_addresses() {
        let holds =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(holds("10.1.0.0/16", "10.1.2.3") && !holds("10.1.0.0/16", "10.2.2.3"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1") && holds("::/0", "::1"));
        assert!(holds("fd12::/16", "fd12:1::1") && holds("10.0.0.1", "10.0.0.1") && !holds("10.0.0.1", "10.0.0.2"));
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "a/8", "::/129", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }
}
