//! `omni_event`: the core's event under its C name, and the kinds there are.

use omnipoll::EventKind;

/// Kind of event: a descriptor is ready.
pub const OMNI_EVENT_IO: u32 = 1;
/// Kind of event: a timer has expired.
pub const OMNI_EVENT_TIMER: u32 = 2;
/// Kind of event: a signal has arrived.
pub const OMNI_EVENT_SIGNAL: u32 = 3;
/// Kind of event: a child has ended.
pub const OMNI_EVENT_CHILD: u32 = 4;
/// Kind of event: `omni_poller_wake` was called.
pub const OMNI_EVENT_WAKE: u32 = 5;
/// Kind of event: `omni_poller_post` was called.
pub const OMNI_EVENT_POST: u32 = 6;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_EVENT_IO == EventKind::Io as u32);
    assert!(OMNI_EVENT_TIMER == EventKind::Timer as u32);
    assert!(OMNI_EVENT_SIGNAL == EventKind::Signal as u32);
    assert!(OMNI_EVENT_CHILD == EventKind::Child as u32);
    assert!(OMNI_EVENT_WAKE == EventKind::Wake as u32);
    assert!(OMNI_EVENT_POST == EventKind::Post as u32);
};

/// One event. 24 bytes, without padding.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct omni_event {
    /// As given at registration; 0 for OMNI_EVENT_WAKE.
    pub token: u64,
    /// OMNI_EVENT_IO: the descriptor. OMNI_EVENT_TIMER: how many periods have passed, 1 without a
    /// period. OMNI_EVENT_SIGNAL: its number. OMNI_EVENT_CHILD: its status, for WIFEXITED and its
    /// like, or -1 when it was reaped elsewhere. OMNI_EVENT_WAKE: how
    /// many wakes this event stands for. OMNI_EVENT_POST: as posted.
    pub value: i64,
    /// OMNI_EVENT_IO: what the descriptor is ready for: OMNI_READ to OMNI_INVALID, at least one
    /// of them. OMNI_EVENT_SIGNAL: how often it arrived. 0 for every other kind.
    pub ready: u32,
    /// OMNI_EVENT_IO and so on. Ignore an unknown kind: later versions have more.
    pub kind: u32,
}

// `omni_poller_wait` lets the core write into the caller's array. Which field is where, the C tests show.
const _: () = {
    assert!(size_of::<omni_event>() == size_of::<omnipoll::Event>());
    assert!(align_of::<omni_event>() == align_of::<omnipoll::Event>());
};
