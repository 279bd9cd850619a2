//! Servers: one handler, and the ways to serve many clients with it.
//!
//! [`event_loop`] is the loop that all of them run; what becomes of a client that comes in at its
//! doors is what tells one model from another.

mod acceptor;
mod child_processes;
mod connections;
mod cores;
mod event_loop;
mod fork;
mod handler;
mod options;
mod prefork;
mod server;
mod shared;
mod stats;
mod thread;
mod tokens;
mod worker;

pub use handler::Handler;
pub use options::{AroundFork, Model, ServerOptions};
pub use server::{Server, ServerHandle};
pub use stats::{ServerStats, WorkerStats};
