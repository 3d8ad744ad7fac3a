//! Which addresses are out of the house.
//!
//! Owns the one judgement about an address, after a name was resolved. Separate because it is a table that has to be read
//! against the registries it is from: IANA's special-purpose address registries for IPv4 and IPv6, and the addresses under
//! which clouds answer their own machines. What carries another address inside (mapped, compatible, NAT64, 6to4, Teredo) is
//! refused as such, so nothing hides in it.
//!
//! Bounded: nothing allocates. Nothing here fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Out of the house.
    Public,
    /// Somebody's own network, for the reason given; an operator may allow it for a host.
    Private(&'static str),
    /// Nowhere that a call may go, whoever allows it.
    Never(&'static str),
}

use Reach::{Never, Private, Public};

const V4: &[(Ipv4Addr, u32, Reach)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Never("unspecified")),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Private("private")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Private("shared by a carrier's customers")),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Private("loopback")),
    // Not a private network, though it answers only inside one.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Never("a cloud's own")),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Never("link-local, where clouds keep credentials")),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Private("private")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Never("reserved for protocols")),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Never("for documentation")),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Never("a relay to other addresses")),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Private("private")),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Private("for benchmarks")),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Never("for documentation")),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Never("for documentation")),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Never("multicast")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Never("reserved")),
];

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// The first that fits counts; what none fits and is not in 2000::/3 is reserved.
const V6: &[(Ipv6Addr, u32, Reach)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Never("unspecified")),
    (Ipv6Addr::LOCALHOST, 128, Private("loopback")),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Never("an IPv4 address in IPv6 clothes")),
    (Ipv6Addr::UNSPECIFIED, 96, Never("an IPv4 address in IPv6 clothes")),
    (v6(0x64, 0xff9b, 0), 96, Never("translated to an IPv4 address")),
    (v6(0x64, 0xff9b, 1), 48, Never("translated to an IPv4 address")),
    (v6(0x2001, 0, 0), 23, Never("reserved for protocols")),
    (v6(0x2001, 0xdb8, 0), 32, Never("for documentation")),
    (v6(0x2002, 0, 0), 16, Never("a relay to other addresses")),
    (v6(0x3fff, 0, 0), 20, Never("for documentation")),
    (v6(0x2000, 0, 0), 3, Public),
    (v6(0xfc00, 0, 0), 7, Private("private")),
    (v6(0xfe80, 0, 0), 10, Never("link-local")),
    (v6(0xff00, 0, 0), 8, Never("multicast")),
];

/// What this address is to us.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => {
            let fits = |(network, bits, _): &&(Ipv4Addr, u32, Reach)| {
                (u32::from(address) ^ u32::from(*network)).leading_zeros() >= *bits
            };
            V4.iter().find(fits).map_or(Public, |(.., reach)| *reach)
        }
        IpAddr::V6(address) => {
            let fits = |(network, bits, _): &&(Ipv6Addr, u32, Reach)| {
                (u128::from(address) ^ u128::from(*network)).leading_zeros() >= *bits
            };
            V6.iter().find(fits).map_or(Never("reserved"), |(.., reach)| *reach)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_public(address: &str) -> bool {
        reach(address.parse().unwrap()) == Public
    }

    /// The answers of `ipaddress.ip_address(…).is_global` of Python 3.11.
    #[test]
    fn addresses_are_judged_as_an_independent_library_judges_them() {
        for (address, expect) in include!("address.expected") {
            assert_eq!(is_public(address), expect, "{address}");
        }
    }

    #[test]
    fn where_we_are_stricter_than_that_library() {
        for address in [
            // Multicast, which the library calls global.
            "224.0.0.1",
            "239.255.255.255",
            "ff0e::1",
            // Addresses that lead to others.
            "192.88.99.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "::127.0.0.1",
            "::ffff:8.8.8.8",
            // Where Azure answers its machines; Oracle and Alibaba have theirs in reserved ranges.
            "168.63.129.16",
            "192.0.0.192",
            // Registered since that library was made.
            "3fff::1",
            "5f00::1",
            // The deprecated site-local range, and what nobody was given.
            "fec0::1",
            "4000::1",
        ] {
            assert!(!is_public(address), "{address}");
        }
    }

    #[test]
    fn an_operator_may_allow_private_networks_and_nothing_worse() {
        for address in ["10.1.2.3", "127.0.0.1", "192.168.0.1", "172.31.255.255", "100.64.0.1", "::1", "fd00:ec2::254"]
        {
            assert!(matches!(reach(address.parse().unwrap()), Private(_)), "{address}");
        }
        for address in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(matches!(reach(address.parse().unwrap()), Never(_)), "{address}");
        }
    }
}
