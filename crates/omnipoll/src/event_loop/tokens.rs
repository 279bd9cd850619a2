//! The tokens of a loop's own events: those of its connections, their slots, are the lowest.

use crate::poller::RESERVED_TOKENS;

/// Connections, from this one on.
pub(crate) const CONNECTIONS: u64 = RESERVED_TOKENS;
/// Listening sockets, from this one on.
pub(crate) const LISTENERS: u64 = RESERVED_TOKENS + (1 << 24);
/// Datagram sockets, from this one on.
pub(crate) const DATAGRAMS: u64 = RESERVED_TOKENS + (1 << 25);
/// Those of the server that runs the loop: from this one on.
pub(crate) const OWNER: u64 = RESERVED_TOKENS + (1 << 26);
/// Accepting is tried again.
pub(crate) const RETRY_ACCEPT: u64 = RESERVED_TOKENS + (1 << 27);
/// Datagram sockets are watched again.
pub(crate) const RETRY_DATAGRAMS: u64 = RETRY_ACCEPT + 1;
/// The time to stop is up.
pub(crate) const DRAIN_TIMEOUT: u64 = RETRY_ACCEPT + 2;
