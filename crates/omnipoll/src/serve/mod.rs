//! Servers: one handler, and the [`models`] to serve many clients with it.
//!
//! Every model accepts clients in a [`server_loop`]. A [`worker`] serves them in the same loop; THREAD
//! and FORK start a thread or process for each.

mod child_processes;
mod client_limits;
mod lifecycle;
mod models;
mod notifier;
mod options;
mod prometheus;
mod pulse;
mod restart;
mod server;
mod server_handle;
mod server_loop;
mod shared;
mod socket_options;
mod started_server;
mod stats;
mod successor;
mod tokens;
mod worker;
mod worker_process;

pub use crate::event_loop::Handler;
pub use options::{AroundFork, Model, ServerOptions};
pub use restart::Restart;
pub use server::Server;
pub use server_handle::ServerHandle;
pub use started_server::StartedServer;
pub use stats::{ServerStats, WorkerStats};
