//! The Python class `Loop`: the core's `EventLoop`, by handler and pulled.
//!
//! One core loop has both faces: its handler ([`LoopHandler`]) calls the methods of Python's handlers while
//! the loop runs, and keeps what happens for a list of events while it is waited for.

mod class;
mod connect;
mod driving;
mod handler;
mod loop_core;
mod loop_event;
mod members;
mod opening;
mod pull_buffer;
mod pulled;
mod shared;

pub(crate) use self::class::PyLoop;
pub(crate) use self::connect::{connect_options, reason};
pub(crate) use self::driving::timeout_of;
pub(crate) use self::loop_event::{PyLoopEvent, KINDS};
