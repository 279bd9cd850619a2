//! The tokens of a server's own events in its loops.

use crate::event_loop::tokens::OWNER;

/// The pipe whose end means that the parent has stopped, or died.
pub(super) const STOP_PIPE: u64 = OWNER;
/// A signal that stops the server.
pub(super) const SIGNAL: u64 = OWNER + 2;
/// Processes that have not ended are killed.
pub(super) const KILL_CHILDREN: u64 = OWNER + 3;
/// A worker process has something to say.
pub(super) const PULSE: u64 = OWNER + 4;
/// A worker shows its parent that it turns, or the parent looks.
pub(super) const BEAT: u64 = OWNER + 8;
/// The service manager is notified that the process is alive.
pub(super) const WATCHDOG: u64 = OWNER + 5;
/// The process that is to replace the server.
pub(super) const SUCCESSOR: u64 = OWNER + 6;
/// A signal has the server restarted.
pub(super) const RESTART: u64 = OWNER + 7;
