//! [`ConnId`]: the name of a connection, for other threads.

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

/// The most loops of one process at a time.
pub(crate) const MAX_LOOPS: usize = 1 << LOOP_BITS;
/// The most connections of one loop.
pub(crate) const MAX_CONNECTIONS: usize = 1 << ENTRY_BITS;

// ```text
//  63        38 37   18 17  16 15   0
// | generation | entry | kind | loop |
// ```
// The entry is the connection's in its loop's mailbox, and the generation counts the connections that
// this entry has had. The handles of the C library have their kind in the same place.
const LOOP_BITS: u32 = 16;
const KIND_BITS: u32 = 2;
const ENTRY_BITS: u32 = 20;
const GENERATION_BITS: u32 = 64 - LOOP_BITS - KIND_BITS - ENTRY_BITS;
const KIND: u64 = 3;
/// An entry that has had this many connections is not used again: its ids would repeat.
pub(super) const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

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

    pub(super) fn new(generation: u32, loop_index: usize, entry: usize) -> Self {
        let high = (u64::from(generation) << ENTRY_BITS | entry as u64) << KIND_BITS | KIND;
        Self(high << LOOP_BITS | loop_index as u64)
    }

    pub(super) fn is_connection(self) -> bool {
        self.0 >> LOOP_BITS & ((1 << KIND_BITS) - 1) == KIND
    }

    pub(super) fn loop_index(self) -> usize {
        self.0 as usize & (MAX_LOOPS - 1)
    }

    pub(super) fn entry(self) -> usize {
        (self.0 >> (LOOP_BITS + KIND_BITS)) as usize & (MAX_CONNECTIONS - 1)
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> (LOOP_BITS + KIND_BITS + ENTRY_BITS)) as u32
    }
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_generation_entry_and_loop() {
        let id = ConnId::new(LAST_GENERATION, MAX_LOOPS - 1, MAX_CONNECTIONS - 1);
        assert_eq!(id.number(), u64::MAX);
        assert_eq!(
            (id.generation(), id.loop_index(), id.entry()),
            (LAST_GENERATION, MAX_LOOPS - 1, MAX_CONNECTIONS - 1)
        );
        let id = ConnId::new(3, 2, 1);
        assert_eq!((id.generation(), id.loop_index(), id.entry()), (3, 2, 1));
        assert!(id.is_connection());
        assert!(!ConnId(id.0 ^ 1 << LOOP_BITS).is_connection());
    }
}
