//! The numbers of ids: what leads from any thread to a loop, and to something of the loop's.
//!
//! ```text
//!  63        39 38   19 18  16 15   0
//! | generation | entry | kind | loop |
//! ```
//! The entry is in a table of its loop's mailbox, and the generation counts what this entry has
//! stood for. The handles of the C library have their kind in the same place.

/// The most loops of one process at a time.
pub(crate) const MAX_LOOPS: usize = 1 << LOOP_BITS;
/// The most entries of one loop.
pub(super) const MAX_ENTRIES: usize = 1 << ENTRY_BITS;
/// An entry that has had this many generations is not used again: its ids would repeat.
pub(super) const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

const LOOP_BITS: u32 = 16;
const KIND_BITS: u32 = 3;
const ENTRY_BITS: u32 = 20;
const GENERATION_BITS: u32 = 64 - LOOP_BITS - KIND_BITS - ENTRY_BITS;

/// What an id stands for. The C library has the other numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection = 3,
    DatagramSocket = 4,
}

/// An id of this kind.
pub(super) const fn number(kind: Kind, generation: u32, loop_index: usize, entry: usize) -> u64 {
    let high = ((generation as u64) << ENTRY_BITS | entry as u64) << KIND_BITS | kind as u64;
    high << LOOP_BITS | loop_index as u64
}

pub(super) const fn is_of(number: u64, kind: Kind) -> bool {
    number >> LOOP_BITS & ((1 << KIND_BITS) - 1) == kind as u64
}

pub(super) const fn loop_index(number: u64) -> usize {
    number as usize & (MAX_LOOPS - 1)
}

pub(super) const fn entry(number: u64) -> usize {
    (number >> (LOOP_BITS + KIND_BITS)) as usize & (MAX_ENTRIES - 1)
}

pub(super) const fn generation(number: u64) -> u32 {
    (number >> (LOOP_BITS + KIND_BITS + ENTRY_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_generation_entry_kind_and_loop() {
        for kind in [Kind::Connection, Kind::DatagramSocket] {
            for (first, second, third) in [(3, 2, 1), (LAST_GENERATION, MAX_LOOPS - 1, MAX_ENTRIES - 1)] {
                let id = number(kind, first, second, third);
                assert_eq!((generation(id), loop_index(id), entry(id)), (first, second, third));
                assert!(is_of(id, kind));
                assert!(!is_of(id ^ 1 << LOOP_BITS, kind));
            }
        }
        assert!(!is_of(number(Kind::Connection, 1, 1, 1), Kind::DatagramSocket));
    }
}
