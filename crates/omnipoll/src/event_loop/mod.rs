//! One loop in one thread: it accepts connections, waits, and dispatches events and completions.
//!
//! What is done with an accepted connection is up to the loop's [`Clients`]: [`Connections`] serves it
//! in this loop; a server's models may start a thread or a process for it.

mod acceptor;
mod completions;
mod connecting;
mod connections;
mod core;
mod datagrams;
mod embed;
mod forward;
mod frames;
mod handler;
mod hooks;
mod loop_event;
mod loop_handle;
mod options;
mod proxy_header;
mod pulled;
mod relay;
mod run;
mod timers;
pub(crate) mod tokens;

pub(crate) use self::acceptor::{Accepted, Acceptor};
pub(crate) use self::connections::{budget_of, Connections, LoopPlace};
pub(crate) use self::core::{Clients, Core, Hooks, EVENTS};
pub use self::handler::Handler;
pub use self::loop_event::{LoopEvent, LoopEventKind};
pub use self::loop_handle::LoopHandle;
pub use self::options::LoopOptions;
pub use self::pulled::PulledLoop;
pub use self::run::EventLoop;
