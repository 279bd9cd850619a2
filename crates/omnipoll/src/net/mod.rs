//! Sockets and connections, without a loop.
//!
//! - Opening: [`listen_address`], [`listener`], [`bound`].
//! - A connection's state is in [`connection`] and what it holds: [`write_queue`], [`timeouts`] with
//!   its [`timer`], and [`io_state`], which its [`driver`] keeps. Callbacks get it as a [`Conn`],
//!   with writing in [`conn`] and the rest in [`conn_control`].
//! - Other threads have its [`ConnId`]: [`remote`] finds the [`mailbox`] of its loop in the
//!   [`loop_table`].
//! - Counting: [`account`] the bytes that wait, [`counters`] what was done.

mod account;
mod bound;
mod conn;
mod conn_control;
mod conn_id;
mod connection;
mod counters;
mod datagram;
mod datagram_queue;
pub(crate) mod driver;
mod io_state;
mod listen_address;
mod listener;
mod loop_context;
mod loop_table;
mod mailbox;
mod remote;
mod socket_file;
mod timeouts;
mod timer;
mod write_queue;

pub use conn::Conn;
pub use conn_id::ConnId;
pub use datagram::Datagram;

#[cfg(any(test, fuzzing))]
pub(crate) use account::Account;
pub(crate) use account::Budget;
pub(crate) use bound::Bound;
pub(crate) use conn_id::{MAX_CONNECTIONS, MAX_LOOPS};
pub(crate) use connection::Connection;
pub(crate) use counters::{Counter, Counters, WorkerCounters};
pub(crate) use datagram::DatagramSocket;
pub(crate) use listen_address::ListenAddress;
pub(crate) use listener::Listener;
pub(crate) use loop_context::LoopContext;
pub(crate) use loop_table::{close_mailbox, open_mailbox, reserve_generations};
pub(crate) use mailbox::{Command, Mailbox, PendingCommand};
pub(crate) use timeouts::{Clock, Timeouts};
pub(crate) use write_queue::{copy_of, WriteQueue};
