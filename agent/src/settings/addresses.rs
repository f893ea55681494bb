//! Addresses that are the machine's or the cluster's own, as far as a process can see them: no setting names them.
//!
//! # Guarantees
//! - A gateway is told whichever table names it. In a pod it is the node: the bridge of the container network has an address
//!   that no object of Kubernetes tells.
//! - What cannot be read, or is not of the form, adds nothing and stops nothing.
//!
//! # Limits
//! Read once: a route that comes later is not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the kernel lists routes of IPv4.
const ROUTES: &str = "/proc/net/route";
/// Where it lists those of IPv6.
const ROUTES_V6: &str = "/proc/net/ipv6_route";

/// The flag of a route by a gateway (`RTF_GATEWAY`).
const BY_GATEWAY: u32 = 2;

/// Returns the gateways of this process's network.
pub(super) fn gateways() -> Vec<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    listed(&read(ROUTES), &read(ROUTES_V6))
}

/// Returns the gateways that these tables name, each once.
fn listed(routes: &str, routes_v6: &str) -> Vec<IpAddr> {
    let v4 = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The kernel prints the address as the number that it is in memory.
        let gateway = || Some(IpAddr::V4(Ipv4Addr::from(number(fields.get(2)?)?.to_ne_bytes())));
        is_by_gateway(fields.get(3)?).then(gateway)?
    });
    let v6 = routes_v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let gateway = || {
            let digits = fields.get(4).filter(|digits| digits.len() == 32)?;
            Some(IpAddr::V6(Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?)))
        };
        is_by_gateway(fields.get(8)?).then(gateway)?
    });
    let mut found: Vec<IpAddr> = v4.chain(v6).filter(|address| !address.is_unspecified()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn is_by_gateway(flags: &str) -> bool {
    number(flags).is_some_and(|flags| flags & BY_GATEWAY != 0)
}

fn number(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(gateway: &str) -> String {
        let number = u32::from_ne_bytes(gateway.parse::<Ipv4Addr>().expect("an address").octets());
        format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t{number:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
             eth1\t0000F50A\t{number:08X}\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        )
    }

    const V6: &str = "\
fd000010024400000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000010024400000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn gateways_are_read_from_the_tables_of_both_families() {
        let wanted: Vec<IpAddr> = ["10.244.1.1", "fd00:10:244::1"].map(|text| text.parse().expect("an address")).into();
        assert_eq!(listed(&table("10.244.1.1"), V6), wanted);
        assert_eq!(listed(&table("0.0.0.0"), ""), Vec::<IpAddr>::new());
    }

    #[test]
    fn what_is_no_table_names_nobody() {
        for text in ["", "\n\n", "eth0", "eth0 0 zz 0003", "a b c d e f g h 00000003", "eth0\t0\tFFFFFFFFFF\t0003"] {
            assert_eq!(listed(text, text), Vec::<IpAddr>::new(), "{text:?}");
        }
    }
}
