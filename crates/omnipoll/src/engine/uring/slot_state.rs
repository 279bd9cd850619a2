//! The state of a registration, as [`Registration::engine_data`] has it.
//!
//! A registration is at any time in one of three places: among the polls that are still to be
//! submitted (the word holds its index there), in the queue of those that may have an event (the
//! word holds the bits of poll(2) that completions brought), or in neither. Whether the kernel
//! watches it is independent of that.
//!
//! The [engine's documentation](super) draws the ways between them.

use crate::registry::Registration;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotState(u32);

/// Bits and index share the lower part: no registration has both.
const BITS: u32 = 0xffff;
const INDEX: u32 = (1 << 25) - 1;

impl SlotState {
    /// Nothing is known of it, and nothing asked.
    pub(super) const IDLE: Self = Self(0);
    /// The kernel has a poll of it, under its present generation.
    pub(super) const WATCHED: Self = Self(1 << 31);
    /// It is in the queue.
    pub(super) const QUEUED: Self = Self(1 << 30);
    /// It is among the polls to submit, at the index.
    pub(super) const PENDING: Self = Self(1 << 29);
    /// What the bits say may have passed, or is not all: only poll(2) can say.
    pub(super) const UNVERIFIED: Self = Self(1 << 28);
    /// A ONESHOT whose single poll has ended with nothing to report: the next one is multishot.
    pub(super) const MULTISHOT: Self = Self(1 << 27);
    /// An always ready file, which the kernel can't poll: it is verified each time.
    pub(super) const ALWAYS_READY: Self = Self(1 << 26);
    /// It was found closed, and is no longer watched.
    pub(super) const CLOSED: Self = Self(1 << 25);

    pub(super) const fn of(registration: &Registration) -> Self {
        Self(registration.engine_data)
    }

    pub(super) const fn set(self, registration: &mut Registration) {
        registration.engine_data = self.0;
    }

    pub(super) const fn is(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[must_use]
    pub(super) const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    #[must_use]
    pub(super) const fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }

    /// The bits of poll(2) that completions brought since its last event.
    pub(super) const fn bits(self) -> u16 {
        (self.0 & BITS) as u16
    }

    #[must_use]
    pub(super) const fn with_bits(self, bits: u16) -> Self {
        Self(self.0 | bits as u32)
    }

    /// Where it is among the polls to submit.
    pub(super) const fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }

    /// Among the polls to submit, at that index. There are never 2^25 descriptors: `fs.nr_open` is
    /// less.
    #[must_use]
    pub(super) const fn pending_at(self, index: usize) -> Self {
        Self(self.0 & !INDEX | Self::PENDING.0 | index as u32 & INDEX)
    }

    /// Neither among the polls to submit nor in the queue.
    #[must_use]
    pub(super) const fn unlisted(self) -> Self {
        Self(self.0 & !(INDEX | Self::QUEUED.0 | Self::PENDING.0 | Self::UNVERIFIED.0))
    }
}
