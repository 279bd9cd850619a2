//! `omni_loop_event`: the core's event of a pulled loop under its C name, and the kinds there are.

use omnipoll::LoopEventKind;

/// Kind of loop event: a connection was accepted. The token is its listener's.
pub const OMNI_EVENT_ACCEPTED: u32 = 16;
/// Kind of loop event: a connection out is established. The token is what `omni_loop_connect` was
/// given.
pub const OMNI_EVENT_CONNECTED: u32 = 17;
/// Kind of loop event: bytes have arrived, and lie in the loop's buffer.
pub const OMNI_EVENT_DATA: u32 = 18;
/// Kind of loop event: the peer has ended its direction. Close the connection when all is written.
pub const OMNI_EVENT_ENDED: u32 = 19;
/// Kind of loop event: more bytes than `high_water` were waiting to be sent, and no more than
/// `low_water` are now.
pub const OMNI_EVENT_DRAINED: u32 = 20;
/// Kind of loop event: the connection has ended, or never opened, and no event of it follows.
pub const OMNI_EVENT_CLOSED: u32 = 21;
/// Kind of loop event: the loop has begun to stop. Close the connection when it is idle.
pub const OMNI_EVENT_STOPPING: u32 = 22;
/// Kind of loop event: `omni_conn_post` was called.
pub const OMNI_EVENT_CONN_POST: u32 = 23;
/// Kind of loop event: a datagram has arrived, and lies in the loop's buffer.
pub const OMNI_EVENT_DATAGRAM: u32 = 24;
/// Kind of loop event: a datagram that was sent is lost.
pub const OMNI_EVENT_DATAGRAM_ERROR: u32 = 25;
/// Kind of loop event: the time of `omni_conn_set_timer` has passed.
pub const OMNI_EVENT_CONN_TIMER: u32 = 26;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_EVENT_ACCEPTED == LoopEventKind::Accepted as u32);
    assert!(OMNI_EVENT_CONNECTED == LoopEventKind::Connected as u32);
    assert!(OMNI_EVENT_DATA == LoopEventKind::Data as u32);
    assert!(OMNI_EVENT_ENDED == LoopEventKind::Ended as u32);
    assert!(OMNI_EVENT_DRAINED == LoopEventKind::Drained as u32);
    assert!(OMNI_EVENT_CLOSED == LoopEventKind::Closed as u32);
    assert!(OMNI_EVENT_STOPPING == LoopEventKind::Stopping as u32);
    assert!(OMNI_EVENT_CONN_POST == LoopEventKind::ConnPost as u32);
    assert!(OMNI_EVENT_DATAGRAM == LoopEventKind::Datagram as u32);
    assert!(OMNI_EVENT_DATAGRAM_ERROR == LoopEventKind::DatagramError as u32);
    assert!(OMNI_EVENT_CONN_TIMER == LoopEventKind::ConnTimer as u32);
};

/// One event of a pulled loop. 32 bytes, without padding.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct omni_loop_event {
    /// What listen, connect, `omni_conn_set_token` or the poller's function was given.
    pub token: u64,
    /// The connection as a number, as `omni_conn_id` has it: `(omni_conn *)(uintptr_t)event.value`.
    /// OMNI_EVENT_DATAGRAM and OMNI_EVENT_DATAGRAM_ERROR: the socket. OMNI_EVENT_IO to
    /// OMNI_EVENT_POST: as omni_event has it.
    pub value: i64,
    /// Where in the loop's buffer the bytes of the event begin: what has arrived; of
    /// OMNI_EVENT_CLOSED and OMNI_EVENT_DATAGRAM_ERROR why, in words, without a zero at the end.
    /// OMNI_EVENT_CONN_POST: the upper half of what was posted.
    pub offset: u32,
    /// How many bytes there are. OMNI_EVENT_CONN_POST: the lower half of what was posted.
    pub length: u32,
    /// OMNI_EVENT_CLOSED and OMNI_EVENT_DATAGRAM_ERROR: 0 when it has ended cleanly, or an errno
    /// without a sign. OMNI_EVENT_IO and OMNI_EVENT_SIGNAL: as omni_event has it.
    pub ready: u32,
    /// OMNI_EVENT_ACCEPTED and so on, or OMNI_EVENT_IO to OMNI_EVENT_POST. Ignore an unknown kind: later
    /// versions have more.
    pub kind: u32,
}

// `omni_loop_wait` lets the core write into the caller's array. Which field is where, the C tests show.
const _: () = {
    assert!(size_of::<omni_loop_event>() == size_of::<omnipoll::LoopEvent>());
    assert!(align_of::<omni_loop_event>() == align_of::<omnipoll::LoopEvent>());
};
