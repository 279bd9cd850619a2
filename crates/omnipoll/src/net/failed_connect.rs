//! [`FailedConnect`]: a connection that never opened.

use std::fmt::Write;
use std::io;

use super::conn_id::ConnId;
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
    /// `summary` says what was connected to, and what has gone wrong besides the attempts.
    pub(super) fn new(
        id: ConnId,
        token: u64,
        errno: i32,
        summary: &str,
        attempts: Vec<(Address, i32)>,
    ) -> Self {
        let mut words = summary.to_owned();
        for (index, (address, errno)) in attempts.iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            let _ = write!(words, "{separator}{address}: {}", text_of(*errno));
        }
        Self { id, token, errno, words, attempts }
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
