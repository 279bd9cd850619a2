//! One loop in one thread: it accepts connections, waits, and dispatches events and completions.
//!
//! What is done with an accepted connection is up to the loop's [`Clients`]: [`Connections`] serves it
//! in this loop; a server's models may start a thread or a process for it.

mod acceptor;
mod completions;
mod connections;
mod core;
mod datagrams;
mod handler;
mod hooks;
pub(crate) mod tokens;

pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::connections::{ConnectionLimits, Connections};
pub(crate) use self::core::{Clients, EventLoop, Hooks};
pub use self::handler::Handler;
