//! What a registration asks for ([`Interest`]), and how often it is reported ([`Trigger`]).

use std::ops::{BitOr, BitOrAssign};

use crate::event::Ready;

/// What a registration asks for: directions, and a [`Trigger`] (LEVEL by default), combined with `|`.
///
/// # Portability
///
/// The methods are the same on every system and engine; what an engine reports for
/// [`NONE`](Self::NONE) is not.
///
/// ```
/// use omnipoll::{Interest, Trigger};
///
/// let interest = Interest::READ | Interest::WRITE | Trigger::EDGE;
/// assert!(interest.is_readable() && interest.is_writable() && !interest.is_priority());
/// assert_eq!(interest.trigger(), Trigger::EDGE);
/// assert!(interest.contains(Interest::WRITE));
/// assert!(interest.is_edge() && !interest.is_oneshot() && !interest.is_exclusive());
/// assert!(Interest::NONE.is_empty() && !interest.is_empty());
/// assert_eq!(interest.bits(), 0x103);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u16);

/// How often a condition is reported. LEVEL and EDGE exclude each other; ONESHOT goes with both.
///
/// # Portability
///
/// LEVEL, EDGE and ONESHOT mean the same on every engine. EXCLUSIVE is an error (`EINVAL`) on one without
/// [`HAS_EXCLUSIVE`](crate::Capabilities::HAS_EXCLUSIVE).
///
/// ```
/// use omnipoll::Trigger;
///
/// let trigger = Trigger::EDGE | Trigger::ONESHOT;
/// assert!(trigger.contains(Trigger::ONESHOT) && !trigger.contains(Trigger::EXCLUSIVE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trigger(u16);

impl Interest {
    /// No direction: hang-up and errors only, which are reported whatever was asked for.
    ///
    /// # Portability
    ///
    /// `events = 0` of `poll(2)` and `epoll_ctl(2)`. An engine without
    /// [`REPORTS_HANGUP`](crate::Capabilities::REPORTS_HANGUP) (select) reports nothing for it.
    pub const NONE: Self = Self(0);
    /// Data to read, end of file, or a connection to accept (`POLLIN`).
    pub const READ: Self = Self(1);
    /// Room to write, or the end of a connect in progress (`POLLOUT`).
    pub const WRITE: Self = Self(2);
    /// Urgent data: `POLLPRI`, and select's third set.
    pub const PRIORITY: Self = Self(4);

    pub(crate) const ANY: Self = Self(Self::DIRECTIONS);

    const DIRECTIONS: u16 = 7;

    /// The bits of the C API (`OMNI_READ | OMNI_EDGE`, ...).
    ///
    /// See the example of [`Interest`].
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// From the bits of the C API. `None` for an unknown bit, and for EXCLUSIVE with PRIORITY or
    /// ONESHOT, which `epoll_ctl(2)` refuses.
    ///
    /// ```
    /// use omnipoll::{Interest, Trigger};
    ///
    /// assert_eq!(Interest::from_bits(0x101), Some(Interest::READ | Trigger::EDGE));
    /// assert_eq!(Interest::from_bits(0x8000), None);
    /// ```
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !((Self::DIRECTIONS | Trigger::ALL) as u32) != 0 {
            return None;
        }
        let interest = Self(bits as u16);
        if interest.is_possible() {
            Some(interest)
        } else {
            None
        }
    }

    /// Whether every direction of `other` is among the directions asked for.
    ///
    /// See the example of [`Interest`].
    pub const fn contains(self, other: Self) -> bool {
        self.directions() & other.directions() == other.directions()
    }

    /// Whether READ is asked for.
    ///
    /// See the example of [`Interest`].
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READ)
    }

    /// Whether WRITE is asked for.
    ///
    /// See the example of [`Interest`].
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITE)
    }

    /// Whether PRIORITY is asked for.
    ///
    /// See the example of [`Interest`].
    pub const fn is_priority(self) -> bool {
        self.contains(Self::PRIORITY)
    }

    /// Whether no direction is asked for, as in [`Interest::NONE`].
    ///
    /// See the example of [`Interest`].
    pub const fn is_empty(self) -> bool {
        self.directions() == 0
    }

    /// The trigger asked for.
    ///
    /// See the example of [`Interest`].
    pub const fn trigger(self) -> Trigger {
        Trigger(self.0 & Trigger::ALL)
    }

    /// Whether the trigger has EDGE.
    ///
    /// See the example of [`Interest`].
    pub const fn is_edge(self) -> bool {
        self.0 & Trigger::EDGE.0 != 0
    }

    /// Whether the trigger has ONESHOT.
    ///
    /// See the example of [`Interest`].
    pub const fn is_oneshot(self) -> bool {
        self.0 & Trigger::ONESHOT.0 != 0
    }

    /// Whether the trigger has EXCLUSIVE.
    ///
    /// See the example of [`Interest`].
    pub const fn is_exclusive(self) -> bool {
        self.0 & Trigger::EXCLUSIVE.0 != 0
    }

    /// Whether there is nothing that `epoll_ctl(2)` refuses beside EXCLUSIVE.
    pub(crate) const fn is_possible(self) -> bool {
        !self.is_exclusive() || !(self.is_priority() || self.is_oneshot())
    }

    pub(crate) const fn directions(self) -> u8 {
        (self.0 & Self::DIRECTIONS) as u8
    }

    /// What a registration is armed for when it begins: its directions, or without any the
    /// failures, so that it differs from one that is disarmed.
    pub(crate) const fn armed(self) -> u8 {
        if self.is_empty() {
            Ready::FAILURES.bits() as u8
        } else {
            self.directions()
        }
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
    ///
    /// See the example of [`Trigger`].
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
        Self(self.0 | trigger.0)
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
        if self.is_empty() {
            f.write_str("NONE")?;
        } else {
            crate::event::write_names(f, self.bits(), &DIRECTIONS)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    type Question = fn(Interest) -> bool;

    const QUESTIONS: [(u32, Question); 6] = [
        (1, Interest::is_readable),
        (2, Interest::is_writable),
        (4, Interest::is_priority),
        (0x100, Interest::is_edge),
        (0x200, Interest::is_oneshot),
        (0x400, Interest::is_exclusive),
    ];

    #[test]
    fn each_flag_alone_answers_its_own_question() {
        for (flag, _) in QUESTIONS {
            let interest = Interest::from_bits(flag).unwrap();
            assert_eq!(interest.bits(), flag);
            assert_eq!(interest.is_empty(), flag >= 0x100);
            assert_eq!(interest.trigger().0, flag as u16 & Trigger::ALL);
            for (asked, question) in QUESTIONS {
                assert_eq!(question(interest), asked == flag, "{asked:#x} of {interest:?}");
            }
        }
        assert_eq!(Interest::from_bits(0), Some(Interest::NONE));
        assert!(Interest::NONE.is_empty() && QUESTIONS.iter().all(|(_, question)| !question(Interest::NONE)));
    }

    #[test]
    fn an_interest_contains_its_directions_and_a_trigger_its_bits() {
        let directions = [Interest::READ, Interest::WRITE, Interest::PRIORITY];
        for interest in directions {
            for other in directions {
                assert_eq!(interest.contains(other), interest == other);
                assert_eq!((interest | Trigger::EDGE).contains(other | Trigger::ONESHOT), interest == other);
            }
        }
        assert!(!Interest::READ.contains(Interest::READ | Interest::WRITE));
        let triggers = [Trigger::EDGE, Trigger::ONESHOT, Trigger::EXCLUSIVE];
        for trigger in triggers {
            assert!(trigger.contains(Trigger::LEVEL) && !Trigger::LEVEL.contains(trigger));
            for other in triggers {
                assert_eq!(trigger.contains(other), trigger == other);
            }
        }
        assert!(!Trigger::EDGE.contains(Trigger::EDGE | Trigger::ONESHOT));
    }

    #[test]
    fn unknown_bits_and_impossible_combinations_are_no_interest() {
        let known = QUESTIONS.iter().fold(0, |known, (flag, _)| known | flag);
        for bit in (0..32).map(|shift| 1 << shift) {
            assert_eq!(Interest::from_bits(bit).is_some(), known & bit != 0, "{bit:#x}");
            assert_eq!(Interest::from_bits(1 | bit).is_some(), known & bit != 0, "READ and {bit:#x}");
        }
        for (bits, is_possible) in
            [(0x401, true), (0x403, true), (0x501, true), (0x404, false), (0x601, false), (0x701, false)]
        {
            assert_eq!(Interest::from_bits(bits).is_some(), is_possible, "{bits:#x}");
        }
    }
}
