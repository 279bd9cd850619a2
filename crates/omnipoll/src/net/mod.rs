//! Connections: sockets whose writes are queued when the kernel takes no more, that time out,
//! are paused and resumed, and are known by an id to other threads.

mod account;
mod address;
mod bound;
mod carriage;
mod conn;
mod count;
mod datagram;
mod listener;
mod output;
mod remote;
mod site;
mod timeouts;
mod watch;

pub use conn::Conn;
pub use datagram::Datagram;
pub use remote::ConnId;

#[cfg(any(test, fuzzing))]
pub(crate) use account::Account;
pub(crate) use account::Budget;
pub(crate) use address::Address;
pub(crate) use bound::Bound;
pub(crate) use conn::Connection;
pub(crate) use count::{Count, Counter, Counts};
pub(crate) use datagram::DatagramSocket;
pub(crate) use listener::Listener;
pub(crate) use output::{copy_of, Output};
pub(crate) use remote::{set_births_apart, Letter, Mailbox, Order, MOST_LOOPS, MOST_SEATS};
pub(crate) use site::Site;
pub(crate) use timeouts::{Clock, Timeouts};
