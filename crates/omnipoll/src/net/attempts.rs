//! Connecting to a host that has several addresses, by RFC 8305 (Happy Eyeballs): the families take
//! turns, the next address is tried when the one before has failed or has not answered for a moment,
//! and the first connection wins. No system call is made here, and no clock is read.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::Address;

/// How long an address may take to answer before the next one is tried as well: the delay that
/// RFC 8305, section 5, recommends.
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of one host: those that were tried, and those that are still to be.
#[derive(Debug)]
pub(super) struct Attempts {
    waiting: VecDeque<Address>,
    running: usize,
    failed: Vec<(Address, i32)>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Connect to this address as well.
    Try(Address),
    /// Wait for those that were begun; `true` when [`ATTEMPT_DELAY`] limits the wait.
    Wait(bool),
    /// Every address has failed.
    GiveUp,
}

impl Attempts {
    /// In the order in which the resolver returned them (RFC 6724), with the families taking turns,
    /// and each only once.
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self::of(interleave(addresses))
    }

    /// One address.
    pub(super) fn one(address: Address) -> Self {
        Self::of([address].into())
    }

    fn of(waiting: VecDeque<Address>) -> Self {
        Self { waiting, running: 0, failed: Vec::new() }
    }

    /// The next address, at the beginning and when [`ATTEMPT_DELAY`] has passed.
    pub(super) fn next(&mut self) -> Next {
        match self.waiting.pop_front() {
            Some(address) => {
                self.running += 1;
                Next::Try(address)
            }
            None => self.wait(),
        }
    }

    /// An address has failed: the next one need not wait.
    pub(super) fn failed(&mut self, address: Address, errno: i32) -> Next {
        self.ended(address, errno);
        self.next()
    }

    /// An address has failed, and none is tried any more.
    pub(super) fn ended(&mut self, address: Address, errno: i32) {
        self.running -= 1;
        self.failed.push((address, errno));
    }

    /// An address could not be tried: it is again the next one.
    pub(super) fn put_back(&mut self, address: Address) {
        self.running -= 1;
        self.waiting.push_front(address);
    }

    /// What to do after an address was [tried](Next::Try).
    pub(super) fn wait(&self) -> Next {
        match (self.running, self.waiting.is_empty()) {
            (0, true) => Next::GiveUp,
            (_, is_last) => Next::Wait(!is_last),
        }
    }

    /// The addresses that have failed, each with its errno, in the order of their ends.
    pub(super) fn into_failures(self) -> Vec<(Address, i32)> {
        self.failed
    }
}

fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<Address> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return VecDeque::new() };
    let mut unique: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) =
        unique.into_iter().partition(|address| address.is_ipv6() == first);
    let mut order = VecDeque::with_capacity(preferred.len() + other.len());
    while !preferred.is_empty() || !other.is_empty() {
        order.extend(preferred.pop_front().map(Address::from));
        order.extend(other.pop_front().map(Address::from));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_each_address_is_tried_once() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let mut attempts = Attempts::new(found);
        for expected in ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"] {
            assert_eq!(attempts.next(), Next::Try(address(expected)));
        }
        assert_eq!(attempts.next(), Next::Wait(false));
    }

    #[test]
    fn the_resolvers_first_family_is_preferred() {
        let mut attempts = Attempts::new(addresses(&["1.1.1.1:1", "[::1]:1"]));
        assert_eq!(attempts.next(), Next::Try(address("1.1.1.1:1")));
        assert_eq!(attempts.wait(), Next::Wait(true));
        assert_eq!(attempts.next(), Next::Try(address("[::1]:1")));
        assert_eq!(attempts.wait(), Next::Wait(false));
    }

    #[test]
    fn a_failure_is_followed_by_the_next_address_at_once_and_the_last_ends_it() {
        let mut attempts = Attempts::new(addresses(&["1.1.1.1:1", "2.2.2.2:1"]));
        assert_eq!(attempts.next(), Next::Try(address("1.1.1.1:1")));
        let next = attempts.failed(address("1.1.1.1:1"), libc::ECONNREFUSED);
        assert_eq!(next, Next::Try(address("2.2.2.2:1")));
        assert_eq!(attempts.failed(address("2.2.2.2:1"), libc::EHOSTUNREACH), Next::GiveUp);
        let failures =
            [(address("1.1.1.1:1"), libc::ECONNREFUSED), (address("2.2.2.2:1"), libc::EHOSTUNREACH)];
        assert_eq!(attempts.into_failures(), failures);
    }

    #[test]
    fn a_failure_beside_a_running_attempt_waits_for_that_one() {
        let mut attempts = Attempts::new(addresses(&["1.1.1.1:1", "2.2.2.2:1"]));
        assert!(matches!(attempts.next(), Next::Try(_)));
        assert!(matches!(attempts.next(), Next::Try(_)));
        assert_eq!(attempts.failed(address("1.1.1.1:1"), libc::ECONNREFUSED), Next::Wait(false));
    }

    #[test]
    fn an_address_that_is_put_back_is_the_next_one() {
        let mut attempts = Attempts::one(address("1.1.1.1:1"));
        let Next::Try(first) = attempts.next() else { panic!() };
        attempts.put_back(first.clone());
        assert_eq!(attempts.wait(), Next::Wait(true));
        assert_eq!(attempts.next(), Next::Try(first));
    }

    #[test]
    fn no_address_is_none_to_try() {
        assert_eq!(Attempts::new(Vec::new()).next(), Next::GiveUp);
    }
}
