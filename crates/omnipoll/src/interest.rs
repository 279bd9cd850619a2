//! What a registration wants to hear of ([`Interest`]) and how often ([`Trigger`]).

use std::num::NonZeroU16;
use std::ops::{BitOr, BitOrAssign};

/// What a registration asks for: directions, and a [`Trigger`] (LEVEL unless told).
///
/// Combine with `|`: `Interest::READ | Interest::WRITE | Trigger::EDGE`. There is no
/// empty interest: to hear nothing, [remove](crate::Poller::remove) the descriptor or
/// register it [`Trigger::ONESHOT`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(NonZeroU16);

/// How often a condition is reported. LEVEL and EDGE exclude each other; ONESHOT goes with both.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trigger(u16);

impl Interest {
    /// Data to read, end of file, or a connection to accept (`POLLIN`).
    pub const READ: Self = Self(NonZeroU16::new(1).unwrap());
    /// Room to write, or the end of a connect in progress (`POLLOUT`).
    pub const WRITE: Self = Self(NonZeroU16::new(2).unwrap());
    /// Urgent data: `POLLPRI`, and select's third set.
    pub const PRIORITY: Self = Self(NonZeroU16::new(4).unwrap());

    /// Every direction.
    pub(crate) const ANY: Self = Self(NonZeroU16::new(Self::DIRECTIONS).unwrap());

    const DIRECTIONS: u16 = 7;

    /// The bits of the C API (`OMNI_READ | OMNI_EDGE`, ...).
    pub const fn bits(self) -> u32 {
        self.0.get() as u32
    }

    /// From the bits of the C API. `None` for an unknown bit, for no direction at all, and
    /// for EXCLUSIVE with PRIORITY or ONESHOT, which `epoll_ctl(2)` refuses.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !((Self::DIRECTIONS | Trigger::ALL) as u32) != 0 {
            return None;
        }
        let Some(bits) = NonZeroU16::new(bits as u16) else { return None };
        let interest = Self(bits);
        if interest.is_possible() {
            Some(interest)
        } else {
            None
        }
    }

    /// Whether every direction of `other` is among the directions asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.directions() & other.directions() == other.directions()
    }

    /// The trigger asked for.
    pub const fn trigger(self) -> Trigger {
        Trigger(self.0.get() & Trigger::ALL)
    }

    /// Whether there is a direction, and nothing that `epoll_ctl(2)` refuses beside EXCLUSIVE.
    pub(crate) const fn is_possible(self) -> bool {
        let alone = !self.contains(Self::PRIORITY) && !self.is_oneshot();
        self.directions() != 0 && (alone || !self.is_exclusive())
    }

    pub(crate) const fn directions(self) -> u8 {
        (self.0.get() & Self::DIRECTIONS) as u8
    }

    pub(crate) const fn is_edge(self) -> bool {
        self.0.get() & Trigger::EDGE.0 != 0
    }

    pub(crate) const fn is_oneshot(self) -> bool {
        self.0.get() & Trigger::ONESHOT.0 != 0
    }

    pub(crate) const fn is_exclusive(self) -> bool {
        self.0.get() & Trigger::EXCLUSIVE.0 != 0
    }
}

impl Trigger {
    /// Reported by every wait as long as the condition holds. The default.
    pub const LEVEL: Self = Self(0);
    /// Reported when the condition arises. Read or write until `EAGAIN`, then call
    /// [`Poller::rearm`](crate::Poller::rearm).
    pub const EDGE: Self = Self(0x100);
    /// Reported once, then silent until [`Poller::modify`](crate::Poller::modify).
    pub const ONESHOT: Self = Self(0x200);
    /// Of several pollers watching one file, wake only one or a few (`EPOLLEXCLUSIVE`, Linux
    /// 4.5). Only where [`HAS_EXCLUSIVE`](crate::Capabilities::HAS_EXCLUSIVE) is set.
    /// Such a registration can't be modified (`EINVAL`, by epoll's own rule): remove and add it.
    pub const EXCLUSIVE: Self = Self(0x400);

    const ALL: u16 = 0x700;

    /// Whether every bit of `other` is set here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interest {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitOr<Trigger> for Interest {
    type Output = Self;
    fn bitor(self, trigger: Trigger) -> Self {
        match NonZeroU16::new(trigger.0) {
            Some(trigger) => Self(self.0 | trigger),
            None => self,
        }
    }
}

impl BitOr for Trigger {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIRECTIONS: [(u32, &str); 3] = [(1, "READ"), (2, "WRITE"), (4, "PRIORITY")];
        crate::event::write_names(f, self.bits(), &DIRECTIONS)?;
        match self.trigger() {
            Trigger::LEVEL => Ok(()),
            trigger => write!(f, "|{trigger:?}"),
        }
    }
}

impl std::fmt::Debug for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u32, &str); 3] = [(0x100, "EDGE"), (0x200, "ONESHOT"), (0x400, "EXCLUSIVE")];
        match self.0 {
            0 => f.write_str("LEVEL"),
            bits => crate::event::write_names(f, bits.into(), &NAMES),
        }
    }
}
