//! The C library of omnipoll. Its documentation is `include/omnipoll.h`, generated from the
//! comments in here; what this crate adds to the core is translation and handles.
//!
//! `constants` has the numbers of the API, `event` what a wait returns, `library` what the
//! library says of itself, `poller` what a poller is and does with descriptors, `sources` what it
//! waits for besides, `strict` and `inspect` what it says of its use, `error` the errnos and words
//! for them, and `handle` the reason why a stale `omni_poller *` is an error and not undefined
//! behaviour. `server` is what serves clients, with its `options`, its `handler` and its
//! `statistics`; `conn` and `datagram` are what the handler gets, and `current` the reason why a
//! connection's handle is good anywhere. `sized` has the structs that grow, `text` strings.

#![warn(rust_2018_idioms)]
// cbindgen puts what is `pub` into the header; no Rust crate can reach it.
#![allow(unreachable_pub)]

mod buffer;
mod callback_scope;
mod conn;
mod datagram;
mod engine;
mod error;
mod event;
mod handle;
mod handler;
mod inspect;
mod interest;
mod model;
mod mute;
mod options;
mod poller;
mod server;
mod sized;
mod sources;
mod statistics;
mod strict;
mod types;
mod version;

// The fuzz targets call what C calls, as Rust.
#[cfg(fuzzing)]
pub use {
    conn::*, datagram::*, engine::*, error::*, event::*, handler::*, inspect::*, interest::*, model::*,
    options::*, poller::*, server::*, sources::*, statistics::*, strict::*, types::*, version::*,
};
