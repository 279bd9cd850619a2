//! [`ConnId`]: the name of a connection, for other threads.

use super::id_bits::{self, Kind};

/// Names one connection of this process for as long as the process lives; no server uses an id
/// again when its connection has ended. Its methods may be called from any thread.
///
/// See the example of [`Conn::id`](crate::Conn::id).
///
/// # Portability
///
/// Every method is the same on every system and engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// The most connections of one loop.
pub(crate) const MAX_CONNECTIONS: usize = id_bits::MAX_ENTRIES;

impl ConnId {
    /// The id that a number of [`ConnId::number`] stands for. Any number is one; that of no
    /// connection is `ESTALE` in every method.
    ///
    /// ```
    /// use omnipoll::ConnId;
    ///
    /// let id = ConnId::from_number(7);
    /// assert_eq!(id.number(), 7);
    /// assert!(!id.is_open());
    /// assert_eq!(id.write(b"hello").unwrap_err().raw_os_error(), Some(libc::ESTALE));
    /// ```
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, never 0.
    ///
    /// See the example of [`from_number`](Self::from_number).
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn new(generation: u32, loop_index: usize, entry: usize) -> Self {
        Self(id_bits::number(Kind::Connection, generation, loop_index, entry))
    }

    pub(super) const fn is_connection(self) -> bool {
        id_bits::is_of(self.0, Kind::Connection)
    }

    pub(super) const fn loop_index(self) -> usize {
        id_bits::loop_index(self.0)
    }

    pub(super) const fn entry(self) -> usize {
        id_bits::entry(self.0)
    }

    pub(super) const fn generation(self) -> u32 {
        id_bits::generation(self.0)
    }
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
