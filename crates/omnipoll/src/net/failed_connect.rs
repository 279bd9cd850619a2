//! [`FailedConnect`]: a connection that never opened.

use std::io;

use super::conn_id::ConnId;
use super::connect_address::ConnectAddress;
use crate::error::{fail, text_of};
use crate::sys::Address;

/// A connection that never opened: why, and which addresses were tried.
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Debug)]
pub struct FailedConnect {
    id: ConnId,
    token: u64,
    errno: i32,
    words: String,
    attempts: Vec<(Address, i32)>,
}

impl FailedConnect {
    /// `target` is what was connected to, and `why` what has gone wrong besides the attempts, if that is
    /// anything.
    pub(super) fn new(
        id: ConnId,
        token: u64,
        errno: i32,
        (target, why): (&ConnectAddress, Option<&str>),
        attempts: Vec<(Address, i32)>,
    ) -> Self {
        let target = target.to_string();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let tried: Vec<_> = attempts.iter().map(|attempt| describe(attempt, &target)).collect();
        let tried = tried.join("; ");
        let separator = if tried.is_empty() { "" } else { ": " };
        Self { id, token, errno, words: format!("connect {target}{why}{separator}{tried}"), attempts }
    }

    /// The id that connect returned.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The token that connect was given.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Why: the error of the address that was tried last; `ETIMEDOUT` when the time was up,
    /// `EADDRNOTAVAIL` when the name has no address, `ECANCELED` when it was closed or the loop stopped.
    /// [`explain`](crate::explain) has the host and every address that was tried.
    pub fn error(&self) -> io::Error {
        fail(self.errno, self.words.clone())
    }

    /// The addresses that were tried and why each failed, as an errno, in the order of their ends.
    pub fn attempts(&self) -> &[(Address, i32)] {
        &self.attempts
    }
}

/// An address that was tried, unless it is all that was connected to.
fn describe((address, errno): &(Address, i32), target: &str) -> String {
    let address = address.to_string();
    if address == target {
        text_of(*errno)
    } else {
        format!("{address}: {}", text_of(*errno))
    }
}
