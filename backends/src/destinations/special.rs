//! Addresses that no tenant means: the special-purpose registries of IANA (RFC 6890 and what updates it), and where clouds keep
//! what belongs to a machine.
//!
//! Private networks (RFC 1918, RFC 4193) are not among them: the Services of a cluster are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::Network;

const LOOPBACK: &str = "loopback";
const LINK_LOCAL: &str = "link-local, where clouds keep the metadata of machines";
const METADATA: &str = "where a cloud keeps the metadata of machines";
const MULTICAST: &str = "multicast";
const RESERVED: &str = "reserved";
const UNSPECIFIED: &str = "no address of another machine";
const SHARED: &str = "of the address space that carriers share";

/// What of IPv4 is refused; the first that holds says why.
const V4: [(Network, &str); 13] = [
    (v4(0, 0, 0, 0, 8), UNSPECIFIED),
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(192, 0, 0, 192, 32), METADATA),
    (v4(100, 64, 0, 0, 10), SHARED),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 0, 2, 0, 24), RESERVED),
    (v4(198, 18, 0, 0, 15), RESERVED),
    (v4(198, 51, 100, 0, 24), RESERVED),
    (v4(203, 0, 113, 0, 24), RESERVED),
    (v4(224, 0, 0, 0, 4), MULTICAST),
];

/// What of IPv6 is refused; the first that holds says why.
const V6: [(Network, &str); 11] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), LOOPBACK),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), UNSPECIFIED),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    // Instance metadata, time and pod identity of one cloud, and the metadata of another.
    (v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 32), METADATA),
    (v6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254], 128), METADATA),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), MULTICAST),
    // Assignments of the IETF, Teredo among them: it holds an IPv4 address that somebody else chose.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), RESERVED),
    (v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), RESERVED),
    // 6to4, for the same reason.
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), RESERVED),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), RESERVED),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), RESERVED),
];

/// What of IPv6 is in use: global and local unicast. All else is reserved.
const V6_IN_USE: [Network; 2] = [v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)];

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Network {
    Network::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits)
}

const fn v6(segments: [u16; 8], bits: u8) -> Network {
    Network::new(IpAddr::V6(Ipv6Addr::from_segments(segments)), bits)
}

/// Returns the address that is meant: IPv4 that IPv6 holds, as a mapped address (RFC 4291) or for a translator (RFC 6052).
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Returns why no tenant may connect to the address; `None` where one may.
pub(super) fn why_not(address: IpAddr) -> Option<&'static str> {
    let address = canonical(address);
    let listed = |list: &[(Network, &'static str)]| list.iter().find(|one| one.0.contains(address)).map(|one| one.1);
    match address {
        IpAddr::V4(four) => listed(&V4).or((four.octets()[0] >= 240).then_some(RESERVED)),
        IpAddr::V6(_) => {
            listed(&V6).or((!V6_IN_USE.iter().any(|network| network.contains(address))).then_some(RESERVED))
        }
    }
}
