//! Networks and ports as an administrator writes them: `10.0.0.0/8`, `fd00::/8`, `10.1.2.3`, `:6443`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::special::canonical;

/// Bits of an IPv4 address behind those that say it is one, in an IPv6 address that holds it.
const MAPPED_BITS: u8 = 96;

/// A network of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What tenants may connect to although it is refused else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// Every port of these addresses.
    Network(Network),
    /// This port of every address that is not refused.
    Port(u16),
}

/// What was written is neither a network nor what else may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is something else.
    #[error("not an address or a network")]
    NoNetwork,
    /// It is IPv4 inside IPv6, which is judged as IPv4: the whole of such a prefix would be every IPv4 address.
    #[error("an IPv4 network inside IPv6: write it as IPv4")]
    InsideIpv6,
}

impl Network {
    pub(super) const fn new(address: IpAddr, bits: u8) -> Self {
        Self { address, bits }
    }

    /// Returns whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(of), IpAddr::V4(one)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (of.to_bits() ^ one.to_bits()) & mask == 0
            }
            (IpAddr::V6(of), IpAddr::V6(one)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (of.to_bits() ^ one.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let written: IpAddr = address.parse().map_err(|_| NetworkError::NoNetwork)?;
        let most = if written.is_ipv4() { 32 } else { 128 };
        let is_plain = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) => {
                Some(bits).filter(is_plain).and_then(|bits| bits.parse().ok()).ok_or(NetworkError::NoNetwork)?
            }
        };
        match (written, canonical(written)) {
            _ if bits > most => Err(NetworkError::NoNetwork),
            (IpAddr::V6(_), IpAddr::V4(_)) if bits >= MAPPED_BITS => Err(NetworkError::InsideIpv6),
            _ => Ok(Self::new(written, bits)),
        }
    }
}

impl FromStr for Allowance {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        // `::1` is an address.
        match text.strip_prefix(':').filter(|rest| !rest.starts_with(':')) {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).map(Self::Port).ok_or(NetworkError::NoNetwork)
            }
            Some(_) => Err(NetworkError::NoNetwork),
            None => text.parse().map(Self::Network),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_or_refused() {
        for (text, in_it, beside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/31", "10.1.2.2", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("fd00:1::/32", "fd00:1:ffff::1", "fd00:2::1"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.contains(in_it.parse().unwrap()), "{text} {in_it}");
            assert!(!network.contains(beside.parse().unwrap()), "{text} {beside}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "host", "10.0.0.0/8/8", "1"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::NoNetwork), "{text}");
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_to_be_written_as_ipv4() {
        for text in [
            "64:ff9b::/96",
            "64:ff9b::10.0.0.0/104",
            "64:ff9b::10.0.0.1",
            "::ffff:0:0/96",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::InsideIpv6), "{text}");
            assert_eq!(text.parse::<Allowance>(), Err(NetworkError::InsideIpv6), "{text}");
        }
        assert!(NetworkError::InsideIpv6.to_string().contains("write it as IPv4"));
    }

    #[test]
    fn a_port_may_be_allowed_beside_networks() {
        assert_eq!(":6443".parse(), Ok(Allowance::Port(6443)));
        for text in ["10.0.0.0/8", "::1", "::/0"] {
            assert!(matches!(text.parse(), Ok(Allowance::Network(_))), "{text}");
        }
        for text in [":", ":0", ":65536", ":+1", "6443", ":a"] {
            assert_eq!(text.parse::<Allowance>(), Err(NetworkError::NoNetwork), "{text}");
        }
    }
}
