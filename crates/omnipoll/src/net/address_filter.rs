//! [`AddressFilter`]: from which networks clients are accepted.

use std::io;
use std::net::IpAddr;

use super::list::parse_list;

/// Networks that are allowed, all if none is named, but for those that are denied.
#[derive(Debug, Default)]
pub(crate) struct AddressFilter {
    allowed: Vec<Network>,
    denied: Vec<Network>,
}

/// The addresses that begin with so many bits of one, as IPv6 writes them.
#[derive(Debug)]
struct Network {
    start: u128,
    bits: u32,
}

impl AddressFilter {
    /// `EINVAL` for what is no list of networks.
    pub(crate) fn new(allow: &str, deny: &str) -> io::Result<Self> {
        Ok(Self { allowed: networks(allow)?, denied: networks(deny)? })
    }

    /// Whether all pass.
    pub(super) fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    pub(super) fn passes(&self, ip: IpAddr) -> bool {
        let contain = |networks: &[Network]| networks.iter().any(|network| network.contains(ip));
        (self.allowed.is_empty() || contain(&self.allowed)) && !contain(&self.denied)
    }
}

impl Network {
    /// `192.0.2.0/24`, `2001:db8::/32`, or an address.
    fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        let network = Self { start: number(ip), bits: 128 - width + bits };
        (bits <= width && network.start & !network.mask() == 0).then_some(network)
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        number(ip) & self.mask() == self.start
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn networks(list: &str) -> io::Result<Vec<Network>> {
    const EXPECTED: &str = "network such as 192.0.2.0/24 or 2001:db8::/32, without bits behind its own";
    parse_list(list, EXPECTED, Network::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let filter = AddressFilter::new("10.0.0.0/8, 2001:db8::/32 ::1", "10.1.0.0/16,10.2.3.4").unwrap();
        for (ip, passes) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("10.2.3.4", false),
            ("10.2.3.5", true),
            ("11.0.0.1", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(filter.passes(ip.parse().unwrap()), passes, "{ip}");
        }
        let everything_but = AddressFilter::new("", "0.0.0.0/0").unwrap();
        assert!(everything_but.passes("::1".parse().unwrap()));
        assert!(!everything_but.passes("127.0.0.1".parse().unwrap()));
        for word in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/", "a/8", "10.0.0.0/-1"] {
            assert_eq!(
                AddressFilter::new(word, "").unwrap_err().raw_os_error(),
                Some(libc::EINVAL),
                "{word}"
            );
        }
    }
}
