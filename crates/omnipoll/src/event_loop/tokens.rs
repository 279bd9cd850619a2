//! The tokens of a loop's events. Those of its connections, their slots, are below all of these.

/// Listening sockets, from this one on.
pub(crate) const LISTENERS: u64 = 1 << 24;
/// Datagram sockets, from this one on.
pub(crate) const DATAGRAMS: u64 = 1 << 25;
/// Those of the program that runs the loop: from this one on.
pub(crate) const OWNER: u64 = 1 << 26;
/// Accepting is tried again.
pub(crate) const RETRY_ACCEPT: u64 = 1 << 27;
/// Datagram sockets are watched again.
pub(crate) const RETRY_DATAGRAMS: u64 = RETRY_ACCEPT + 1;
