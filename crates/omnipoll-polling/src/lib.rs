//! The interface of the crate [polling](https://docs.rs/polling/3) 3, on omnipoll.
//!
//! A program that depends on `polling`, by way of smol, async-io or calloop perhaps, gets it by two
//! lines in its `Cargo.toml`, and the engine by `OMNIPOLL_ENGINE` in the environment (epoll without it):
//!
//! ```toml
//! [patch.crates-io]
//! polling = { path = "omnipoll/crates/omnipoll-polling" }
//! ```
//!
//! What polling's documentation says of a function holds here. What differs:
//!
//! - Edges are refused ([`ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported)) on select and poll,
//!   which have none, as polling does where it uses `poll(2)`: ask [`Poller::supports_edge`].
//! - On select, hang-up and errors arrive as readable or writable alone, [`Event::is_interrupt`] is never
//!   true and [`Event::is_err`] is `None`; an interest in nothing reports nothing.
//! - [`Poller::as_fd`](std::os::fd::AsFd::as_fd) panics on select and poll, which have no descriptor.
//! - A descriptor that is closed while registered stops being reported even if a duplicate of it is
//!   open; on epoll itself the duplicate goes on being reported.
//! - A forked child's use of its parent's poller is an error (`EOWNERDEAD`).
//!
//! ```
//! use polling::{Event, Events, Poller};
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//!
//! let (ours, mut theirs) = UnixStream::pair()?;
//! ours.set_nonblocking(true)?;
//! let poller = Poller::new()?;
//! // SAFETY: it is deleted below, before it is dropped.
//! unsafe { poller.add(&ours, Event::readable(7))? };
//!
//! theirs.write_all(b"hello")?;
//! let mut events = Events::new();
//! assert_eq!(poller.wait(&mut events, None)?, 1);
//! for event in events.iter() {
//!     assert_eq!((event.key, event.readable, event.writable), (7, true, false));
//! }
//! // Reported once, until it is asked for again.
//! poller.modify(&ours, Event::readable(7))?;
//! poller.delete(&ours)?;
//! # std::io::Result::Ok(())
//! ```

#![warn(rust_2018_idioms)]
#![deny(unsafe_code)]

mod event;
mod poller;
mod source;

/// What only one system has: nothing on those where omnipoll runs.
pub mod os {}

pub use event::{Event, Events};
pub use poller::{PollMode, Poller};
pub use source::{AsRawSource, AsSource};
