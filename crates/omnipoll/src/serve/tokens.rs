//! What the events of a server's loops stand for. Those of its connections are below all these.

/// Listening sockets, from this one on.
pub(super) const LISTENERS: u64 = 1 << 24;
/// Datagram sockets, from this one on.
pub(super) const DATAGRAMS: u64 = 1 << 25;
/// The pipe whose end tells that the parent has stopped, or died.
pub(super) const STOP_PIPE: u64 = 1 << 26;
/// Accepting is tried again.
pub(super) const RETRY: u64 = 1 << 27;
/// Time is up for the clients that are still served.
pub(super) const DRAIN_TIMEOUT: u64 = RETRY + 1;
/// A signal that stops the server.
pub(super) const SIGNAL: u64 = RETRY + 2;
/// Processes that have not ended are killed.
pub(super) const KILL_CHILDREN: u64 = RETRY + 3;
/// Datagram sockets are watched again.
pub(super) const WATCH_DATAGRAMS: u64 = RETRY + 4;
