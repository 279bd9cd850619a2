//! Servers: one handler, and the [`models`] to serve many clients with it.
//!
//! Under every model clients are accepted in a [`server_loop`]; a [`worker`] serves them in the same loop,
//! while THREAD and FORK start one for each client.

mod child_processes;
mod models;
mod options;
mod server;
mod server_loop;
mod shared;
mod stats;
mod tokens;
mod worker;

pub use crate::event_loop::Handler;
pub use options::{AroundFork, Model, ServerOptions};
pub use server::{Server, ServerHandle};
pub use stats::{ServerStats, WorkerStats};
