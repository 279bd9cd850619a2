//! The C library of omnipoll. Its documentation is `include/omnipoll.h`, generated from the
//! comments in here; what this crate adds to the core is translation and handles.
//!
//! `omnipoll.h.in` is the header's frame: its chapters stand for the modules here. `types` has the
//! handles; `version`, `error` and `engine` what needs none; `interest`, `event`, `wait_policy` and `poller` pollers,
//! `sources` what they wait for besides descriptors; `handler` what is called; `loop_event`,
//! `loop_options`, `event_loop`, `connect`, `spawn` and `loop_datagrams` loops; `model`, `options`, `restart`, `server`
//! and `statistics` servers; `conn`, `conn_info`, `datagram` and `datagram_socket` what a handler gets;
//! `inspect` and `strict` what a poller reports of its use.
//!
//! Without a chapter: `handle` makes a stale handle an error instead of undefined behaviour; `callback_scope`
//! has what a callback is lent, `kept_handlers` the handlers that a loop was given, `loop_table` the loops of
//! a thread, and `conn_call` finds a connection by them; `handler_calls` calls a handler's functions, for
//! `loop_handler` and `server_handler`, which the core calls; `server_steps` runs the servers that
//! `started_servers` has; `mute` keeps strict mode silent; `sized` reads and writes structs that grow,
//! `option_values` their fields, `buffer` bytes and strings.

#![warn(rust_2018_idioms)]
// cbindgen puts what is `pub` into the header; no Rust crate can reach it.
#![allow(unreachable_pub)]

mod buffer;
mod callback_scope;
mod conn;
mod conn_call;
mod conn_info;
mod connect;
mod datagram;
mod datagram_socket;
mod engine;
mod error;
mod event;
mod event_loop;
mod handle;
mod handler;
mod handler_calls;
mod inspect;
mod interest;
mod kept_handlers;
mod loop_datagrams;
mod loop_event;
mod loop_handler;
mod loop_options;
mod loop_table;
mod model;
mod mute;
mod option_values;
mod options;
mod poller;
mod restart;
mod server;
mod server_handler;
mod server_steps;
mod sized;
mod sources;
mod spawn;
mod started_servers;
mod statistics;
mod strict;
mod types;
mod version;
mod wait_policy;

// The fuzz targets call what C calls, as Rust.
#[cfg(fuzzing)]
pub use {
    conn::*, conn_info::*, connect::*, datagram::*, datagram_socket::*, engine::*, error::*, event::*,
    event_loop::*, handler::*, inspect::*, interest::*, loop_datagrams::*, loop_event::*, loop_options::*,
    model::*, options::*, poller::*, restart::*, server::*, sources::*, spawn::*, statistics::*, strict::*,
    types::*, version::*,
};
