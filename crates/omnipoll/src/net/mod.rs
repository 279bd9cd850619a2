//! Sockets and connections, without a loop.
//!
//! - Opening: [`listen_address`], [`listener`], [`bound`].
//! - A connection's state is in [`connection`] and what it holds: [`write_queue`], [`timeouts`] with
//!   its [`timer`], and [`io_state`], which its [`driver`] keeps; [`sending`] is how it writes. The loop
//!   has its connections in a [`connection_table`]. Callbacks get one as a [`Conn`], with writing in
//!   [`conn`] and the rest in [`conn_control`], and the loop as a [`LoopRef`].
//! - Other threads have its [`ConnId`]: [`remote`] finds the [`mailbox`] of its loop in the
//!   [`loop_table`].
//! - Counting: [`account`] the bytes that wait, [`counters`] what was done.

mod account;
mod bound;
mod conn;
mod conn_control;
mod conn_id;
mod connection;
mod connection_table;
mod counters;
mod datagram;
mod datagram_queue;
pub(crate) mod driver;
mod io_state;
mod listen_address;
mod listener;
mod loop_context;
mod loop_ref;
mod loop_table;
mod mailbox;
mod remote;
mod sending;
mod socket_file;
mod stop;
mod timeouts;
mod timer;
mod write_queue;

pub use conn::Conn;
pub use conn_id::ConnId;
pub use datagram::Datagram;
pub use loop_ref::LoopRef;

#[cfg(any(test, fuzzing))]
pub(crate) use account::Account;
pub(crate) use account::Budget;
pub(crate) use bound::Bound;
pub(crate) use conn_id::{MAX_CONNECTIONS, MAX_LOOPS};
pub(crate) use connection::{Connection, Origin};
pub(crate) use connection_table::ConnectionTable;
pub(crate) use counters::{Counter, Counters, WorkerCounters};
pub(crate) use datagram::DatagramSocket;
pub(crate) use listen_address::ListenAddress;
pub(crate) use listener::Listener;
pub(crate) use loop_context::{LoopContext, StopLoop};
pub(crate) use loop_table::{close_mailbox, open_mailbox, reserve_generations};
pub(crate) use mailbox::{Command, Mailbox, PendingCommand};
pub(crate) use stop::{encode as encode_stop, StopRequest};
pub(crate) use timeouts::{Clock, Timeouts};
pub(crate) use write_queue::{copy_of, WriteQueue};
