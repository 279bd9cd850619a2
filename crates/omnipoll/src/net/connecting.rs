//! [`Connecting`]: one connect in progress.

use std::time::Duration;

use super::attempts::{Attempts, Next};
use super::conn_id::ConnId;
use super::connect_address::ConnectAddress;
use super::connect_request::SocketSetup;
use super::failed_connect::FailedConnect;
use super::resolver::Lookup;
use crate::sys::Address;

/// What a connect has got to, without its sockets.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) id: ConnId,
    pub(super) token: u64,
    pub(super) address: ConnectAddress,
    pub(super) setup: SocketSetup,
    pub(super) attempts: Attempts,
    /// The keys of those attempts that are running.
    pub(super) running: Vec<usize>,
    pub(super) lookup: Option<Lookup>,
    pub(super) timeout: Option<Duration>,
    /// When the time is up, by the clock of all connects.
    pub(super) limit: Option<u64>,
    /// When the next address is tried.
    pub(super) next_attempt: Option<u64>,
    /// Why the next address was put back.
    pub(super) put_back: Option<i32>,
    /// The timer that is armed, if it isn't 0, and for when.
    pub(super) timer: u64,
    pub(super) armed: u64,
}

/// Why all of it ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// Every address has failed.
    GivenUp,
    TimedOut,
    Cancelled,
}

impl Connecting {
    pub(super) fn new(
        id: ConnId,
        token: u64,
        address: ConnectAddress,
        setup: SocketSetup,
        timeout: Option<Duration>,
        now: u64,
    ) -> Self {
        let attempts = match &address {
            ConnectAddress::Tcp(address) => Attempts::one((*address).into()),
            ConnectAddress::Unix(address) => Attempts::one(address.clone()),
            ConnectAddress::Name(..) | ConnectAddress::Descriptor(_) => Attempts::new(Vec::new()),
        };
        Self {
            id,
            token,
            address,
            setup,
            attempts,
            running: Vec::new(),
            lookup: None,
            timeout,
            limit: timeout.map(|timeout| now.saturating_add(nanoseconds(timeout))),
            next_attempt: None,
            put_back: None,
            timer: 0,
            armed: 0,
        }
    }

    /// When something is to be done, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.next_attempt.into_iter().chain(self.limit).min()
    }

    /// The outcome when it has ended, with those addresses that were still being tried.
    pub(super) fn fail(mut self, end: End, running: Vec<Address>) -> FailedConnect {
        let errno = match end {
            End::GivenUp => libc::EADDRNOTAVAIL,
            End::TimedOut => libc::ETIMEDOUT,
            End::Cancelled => libc::ECANCELED,
        };
        for address in running {
            self.attempts.ended(address, errno);
        }
        if let (Some(put_back), Next::Try(address)) = (self.put_back, self.attempts.next()) {
            self.attempts.ended(address, put_back);
        }
        let why = match (end, self.timeout) {
            (End::TimedOut, Some(timeout)) if self.lookup.is_some() => {
                Some(format!("the name was not resolved within {timeout:?}"))
            }
            (End::TimedOut, Some(timeout)) => Some(format!("not connected within {timeout:?}")),
            (End::Cancelled, _) => Some("cancelled".to_owned()),
            _ => None,
        };
        let attempts = self.attempts.into_failures();
        let errno = match (end, attempts.last()) {
            (End::Cancelled, _) | (_, None) => errno,
            (_, Some((_, last))) => *last,
        };
        FailedConnect::new(self.id, self.token, errno, (&self.address, why.as_deref()), attempts)
    }

    /// The same when the connect has failed for a reason that is no address's.
    pub(super) fn fail_with(self, errno: i32, why: &str) -> FailedConnect {
        let attempts = self.attempts.into_failures();
        FailedConnect::new(self.id, self.token, errno, (&self.address, Some(why)), attempts)
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
