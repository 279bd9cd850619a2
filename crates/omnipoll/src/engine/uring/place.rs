//! What the engine keeps of a registration in its own word: [`Registration::place`].
//!
//! A registration is at any time in one of three places: in the list of those that the kernel
//! is still to be asked for (the word holds its index there), in the queue of those that may
//! have something to tell (the word holds the bits of poll(2) that completions brought), or in
//! neither. Whether the kernel watches it is another matter.
//!
//! [`Registration::place`]: crate::registry::Registration::place

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

/// Bits and index share the lower part: no registration has both.
const BITS: u32 = 0xffff;
const INDEX: u32 = (1 << 25) - 1;

impl Place {
    /// The kernel has a poll of it, under its present generation.
    pub(super) const WATCHED: Self = Self(1 << 31);
    /// It is in the queue.
    pub(super) const QUEUED: Self = Self(1 << 30);
    /// It is in the list, at the index.
    pub(super) const LISTED: Self = Self(1 << 29);
    /// What the bits say may have passed, or is not all: only a look tells.
    pub(super) const UNSURE: Self = Self(1 << 28);
    /// A ONESHOT whose single poll has ended with nothing to tell: the next one is to last.
    pub(super) const LASTING: Self = Self(1 << 27);
    /// An always ready file, which no kernel's poll can watch: it is looked at.
    pub(super) const ALWAYS: Self = Self(1 << 26);
    /// It was found closed, and is watched no more.
    pub(super) const GONE: Self = Self(1 << 25);

    pub(super) const fn is(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    #[must_use]
    pub(super) const fn with(self, what: Self) -> Self {
        Self(self.0 | what.0)
    }

    #[must_use]
    pub(super) const fn without(self, what: Self) -> Self {
        Self(self.0 & !what.0)
    }

    /// The bits of poll(2) that completions brought since it was last told.
    pub(super) const fn bits(self) -> u16 {
        (self.0 & BITS) as u16
    }

    #[must_use]
    pub(super) const fn with_bits(self, bits: u16) -> Self {
        Self(self.0 | bits as u32)
    }

    /// Where it is in the list.
    pub(super) const fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }

    /// In the list, at that index. Nobody has 2^25 descriptors: `fs.nr_open` ends before.
    #[must_use]
    pub(super) const fn listed_at(self, index: usize) -> Self {
        Self(self.0 & !INDEX | Self::LISTED.0 | index as u32 & INDEX)
    }

    /// In neither the list nor the queue.
    #[must_use]
    pub(super) const fn nowhere(self) -> Self {
        Self(self.0 & !(INDEX | Self::QUEUED.0 | Self::LISTED.0 | Self::UNSURE.0))
    }
}
