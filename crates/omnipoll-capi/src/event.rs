//! `omni_event`: the core's event under its C name.

/// One event. 24 bytes, without padding.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct omni_event {
    /// As given at registration; 0 for OMNI_EVENT_WAKE.
    pub token: u64,
    /// OMNI_EVENT_IO: the descriptor. OMNI_EVENT_TIMER: how many periods have passed, 1 without a
    /// period. OMNI_EVENT_SIGNAL: its number. OMNI_EVENT_CHILD: its status, for WIFEXITED and its
    /// like, or -1 when somebody else had reaped it, so that nobody can know. OMNI_EVENT_WAKE: how
    /// many wakes this event stands for. OMNI_EVENT_POST: as posted.
    pub value: i64,
    /// OMNI_EVENT_IO: what the descriptor is ready for: OMNI_READ to OMNI_INVALID, at least one
    /// of them. OMNI_EVENT_SIGNAL: how often it came. 0 for every other kind.
    pub ready: u32,
    /// OMNI_EVENT_IO and so on. Pass over a kind you don't know: later versions have more.
    pub kind: u32,
}

// `omni_poller_wait` lets the core write into the caller's array. Which field is where, the C tests show.
const _: () = {
    assert!(size_of::<omni_event>() == size_of::<omnipoll::Event>());
    assert!(align_of::<omni_event>() == align_of::<omnipoll::Event>());
};
