//! [`AddressTable`]: how many connections each address has, and how fast it makes new ones, over all threads
//! and processes of a server.
//!
//! It is memory that forked workers share, of a fixed size: an address is found by a keyed hash among a few
//! neighbouring rows, and a row is used again when its address has no connections and none is due later. Each row counts
//! by worker, so that the parent of one that was killed can take away what that one had.
//!
//! The lock holds the number of the process that has it: one that was killed with it is found out by
//! `kill(2)`. Every state between two stores is one that the next owner can go on from.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::Counter;
use crate::sys::child_process::is_alive;
use crate::sys::SharedWords;

/// How many addresses there may be at a time.
const ROWS: usize = 1 << 16;
/// In how many neighbouring rows an address may be.
const NEIGHBOURS: usize = 16;
/// The words of a row before the counts: the address, and when its next connection is due at full speed (the
/// theoretical arrival time of the generic cell rate algorithm).
const KEY: usize = 0;
const ARRIVAL: usize = 1;
const COUNTS: usize = 2;
/// The first word of the table is the lock.
const LOCK: usize = 0;
const FIRST_ROW: usize = 1;
/// How often the lock is looked at before its owner is suspected.
const PATIENCE: u32 = 1000;

#[derive(Debug)]
pub(crate) struct AddressTable {
    words: SharedWords,
    workers: usize,
    hasher: RandomState,
    began: Instant,
    max_clients: u64,
    /// The time between two new connections at full speed; nothing without a limit.
    interval: Duration,
}

/// Held while the table is changed.
struct Locked<'a>(&'a AtomicU64);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl AddressTable {
    /// `ENOMEM` as `mmap(2)` says.
    pub(crate) fn new(workers: usize, max_clients: Option<u32>, rate: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            words: SharedWords::new(FIRST_ROW + ROWS * (COUNTS + workers))?,
            workers,
            hasher: RandomState::new(),
            began: Instant::now(),
            max_clients: max_clients.map_or(u64::MAX, u64::from),
            interval: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
        })
    }

    /// Counts a connection of a worker's, and returns the row to [`leave`](Self::leave); or which limit of
    /// its address it exceeds.
    pub(super) fn enter(&self, worker: usize, ip: IpAddr) -> Result<usize, Counter> {
        let key = key_of(ip);
        let now = self.began.elapsed().as_nanos() as u64;
        let _locked = self.lock();
        let Some(row) = self.find(key, now) else { return Err(Counter::RefusedAddress) };
        if self.clients(row) >= self.max_clients {
            return Err(Counter::RefusedAddress);
        }
        let arrival =
            self.row(row)[ARRIVAL].load(Ordering::Relaxed).max(now) + self.interval.as_nanos() as u64;
        if arrival > now + Duration::from_secs(1).as_nanos() as u64 {
            return Err(Counter::RefusedRate);
        }
        self.row(row)[KEY].store(key, Ordering::Relaxed);
        self.row(row)[ARRIVAL].store(arrival, Ordering::Relaxed);
        self.row(row)[COUNTS + worker].fetch_add(1, Ordering::Relaxed);
        Ok(row)
    }

    pub(super) fn leave(&self, worker: usize, row: usize) {
        let _locked = self.lock();
        self.row(row)[COUNTS + worker].fetch_sub(1, Ordering::Relaxed);
    }

    /// A worker's process has ended, and with it all its connections.
    pub(crate) fn forget(&self, worker: usize) {
        let _locked = self.lock();
        for row in 0..ROWS {
            self.row(row)[COUNTS + worker].store(0, Ordering::Relaxed);
        }
    }

    fn row(&self, row: usize) -> &[AtomicU64] {
        let width = COUNTS + self.workers;
        &self.words[FIRST_ROW + row * width..][..width]
    }

    fn clients(&self, row: usize) -> u64 {
        self.row(row)[COUNTS..].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The row of an address, or one that it may have.
    fn find(&self, key: u64, now: u64) -> Option<usize> {
        let start = self.hasher.hash_one(key) as usize;
        let rows = || (0..NEIGHBOURS).map(|step| start.wrapping_add(step) % ROWS);
        let is_free =
            |&row: &usize| self.row(row)[ARRIVAL].load(Ordering::Relaxed) <= now && self.clients(row) == 0;
        rows().find(|&row| self.row(row)[KEY].load(Ordering::Relaxed) == key).or_else(|| rows().find(is_free))
    }

    fn lock(&self) -> Locked<'_> {
        let (lock, own) = (&self.words[LOCK], u64::from(std::process::id()));
        let mut looks = 0;
        loop {
            match lock.compare_exchange_weak(0, own, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Locked(lock),
                Err(owner) if owner != 0 && looks % PATIENCE == PATIENCE - 1 && !is_alive(owner as i32) => {
                    // Whoever is first goes on with what that one has left.
                    let _ = lock.compare_exchange(owner, 0, Ordering::Acquire, Ordering::Relaxed);
                }
                Err(_) => thread::yield_now(),
            }
            looks = looks.wrapping_add(1);
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, as a network of one customer has them. IPv4 lies in a
/// part of those that no network has, and 0, which stands for none, is the part of multicasts.
fn key_of(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => 1 << 32 | u64::from(u32::from(ip)),
        IpAddr::V6(ip) => match (u128::from(ip) >> 64) as u64 {
            0 => u64::MAX,
            network => network,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn an_ipv6_address_counts_by_its_network() {
        let key = |ip: &str| key_of(ip.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("1.2.3.4"), key("::ffff:1.2.3.4"));
        assert_ne!(key("::1"), 0);
    }

    /// Also when as many addresses come as it has room for, and some for which it has none.
    #[test]
    fn what_is_counted_is_exact_however_many_addresses_there_are() {
        let table = AddressTable::new(2, Some(2), None).unwrap();
        let mut rows = Vec::new();
        for number in 0..ROWS as u32 * 2 {
            rows.extend(table.enter(0, ip(number)).map(|row| (row, number)));
        }
        assert!(rows.len() > ROWS * 3 / 4);
        let (row, number) = rows[100];
        assert!(table.enter(1, ip(number)).is_ok_and(|again| again == row));
        assert!(matches!(table.enter(1, ip(number)), Err(Counter::RefusedAddress)));
        table.forget(1);
        assert!(table.enter(1, ip(number)).is_ok());
        table.forget(0);
        table.forget(1);
        assert!((0..1000).all(|number| table.enter(0, ip(number)).is_ok()));
    }

    #[test]
    fn an_address_makes_so_many_connections_a_second() {
        let table = AddressTable::new(1, None, Some(10)).unwrap();
        let began = Instant::now();
        let mut entered = 0;
        while began.elapsed() < Duration::from_millis(300) {
            entered += u32::from(table.enter(0, ip(7)).is_ok());
        }
        assert!(entered >= 10 && f64::from(entered) <= 11.0 + began.elapsed().as_secs_f64() * 10.0);
        assert!(table.enter(0, ip(8)).is_ok());
    }

    #[test]
    fn the_lock_of_a_process_that_has_died_is_taken() {
        let table = AddressTable::new(1, Some(1), None).unwrap();
        // No process has so high a number.
        table.words[LOCK].store(i32::MAX as u64, Ordering::Relaxed);
        assert!(table.enter(0, ip(1)).is_ok());
    }
}
