//! The bits of an interest and of what a descriptor is ready for.

use omnipoll::{Interest, Ready, Trigger};

/// Interest and ready: a read doesn't block, because of data, end of file, a connection to accept,
/// or an error.
pub const OMNI_READ: u32 = 0x1;
/// Interest and ready: a write doesn't block, because of space, a connect that has ended, or an
/// error.
pub const OMNI_WRITE: u32 = 0x2;
/// Interest and ready: urgent data (POLLPRI, the third set of select).
pub const OMNI_PRIORITY: u32 = 0x4;
/// Ready: the peer will send no more; what it sent may still have to be read. Reported only where
/// the engine has OMNI_REPORTS_READ_CLOSED (poll, epoll, io_uring) and OMNI_READ was asked for.
pub const OMNI_READ_CLOSED: u32 = 0x8;
/// Ready: both directions are closed; what was sent may still have to be read. Reported only where
/// the engine has OMNI_REPORTS_HANGUP, and then without being asked for.
pub const OMNI_HANGUP: u32 = 0x10;
/// Ready: an error is pending: the next read or write returns it, or getsockopt(SO_ERROR). Reported
/// only where the engine has OMNI_REPORTS_HANGUP, and then without being asked for.
pub const OMNI_ERROR: u32 = 0x20;
/// Ready: the descriptor was closed while it was registered. Reported once; the registration has
/// ended. Only the select and poll engines notice (select may report OMNI_READ first, if it was
/// closed during a wait); epoll and io_uring report nothing.
pub const OMNI_INVALID: u32 = 0x40;

/// Trigger: report when the condition arises, and not again until it went away and came back
/// or something new arrived. Read or write until EAGAIN, then call `omni_poller_rearm`. Without it
/// the condition is reported by every wait as long as it holds.
pub const OMNI_EDGE: u32 = 0x100;
/// Trigger: report once, then be silent until `omni_poller_modify`. May be combined with OMNI_EDGE.
pub const OMNI_ONESHOT: u32 = 0x200;
/// Trigger: of several pollers that watch one file, wake one or a few only (EPOLLEXCLUSIVE).
/// Needs OMNI_HAS_EXCLUSIVE; can't be combined with OMNI_PRIORITY, OMNI_ONESHOT or
/// `omni_poller_modify`.
pub const OMNI_EXCLUSIVE: u32 = 0x400;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_READ == Interest::READ.bits() && OMNI_READ == Ready::READ.bits());
    assert!(OMNI_WRITE == Interest::WRITE.bits() && OMNI_WRITE == Ready::WRITE.bits());
    assert!(OMNI_PRIORITY == Interest::PRIORITY.bits() && OMNI_PRIORITY == Ready::PRIORITY.bits());
    assert!(OMNI_READ_CLOSED == Ready::READ_CLOSED.bits());
    assert!(OMNI_HANGUP == Ready::HANGUP.bits());
    assert!(OMNI_ERROR == Ready::ERROR.bits());
    assert!(OMNI_INVALID == Ready::INVALID.bits());
    assert!(asks_for(OMNI_EDGE, Trigger::EDGE));
    assert!(asks_for(OMNI_ONESHOT, Trigger::ONESHOT));
    assert!(asks_for(OMNI_EXCLUSIVE, Trigger::EXCLUSIVE));
};

const fn asks_for(bit: u32, trigger: Trigger) -> bool {
    match Interest::from_bits(OMNI_READ | bit) {
        Some(interest) => interest.trigger().contains(trigger),
        None => false,
    }
}
