//! Sockets and connections, without a loop.
//!
//! - Opening: [`listen_address`], [`listener`], [`bound`], with [`socket_settings`].
//! - Connecting: [`connect`], which takes a [`connect_request`] made of a [`connect_address`] and
//!   [`connect_options`], and has the state of each in [`connecting`]; names are looked up by the
//!   [`resolver`], and their addresses are tried in the order of [`attempts`].
//! - A connection's state is in [`connection`] and what it holds: [`write_queue`], [`timeouts`] with
//!   its [`timer`], and [`io_state`], which its [`driver`] keeps; [`sending`] is how it writes. The loop
//!   has its connections in a [`connection_table`]. Callbacks get one as a [`Conn`], with writing in
//!   [`conn`] and the rest in [`conn_control`], and the loop as a [`LoopRef`].
//! - Other threads have its [`ConnId`]: [`remote`] finds the [`mailbox`] of its loop in the
//!   [`loop_table`]. [`groups`] have names, and members in all loops of a server, by [`membership`].
//! - A datagram socket is sent from by any thread, as [`datagram_socket`] says: its [`DatagramId`] leads
//!   to it by the [`datagram_table`] of its loop's mailbox, in [`datagram_remote`]. The loop receives from it by [`datagram_io`];
//!   callbacks get a [`Datagram`].
//! - Limiting: [`admission`] by the [`address_filter`] and the [`address_table`].
//! - [`proxy_header`] parses and writes what a proxy says of its client.
//! - Counting: [`account`] the bytes that wait, [`counters`] what was done.

mod account;
mod address_filter;
mod address_syntax;
mod address_table;
mod admission;
mod attempts;
mod bound;
mod conn;
mod conn_control;
mod conn_facts;
mod conn_id;
mod conn_timeouts;
mod connect;
mod connect_address;
mod connect_options;
mod connect_request;
mod connecting;
mod connection;
mod connection_table;
mod counters;
mod datagram;
mod datagram_id;
mod datagram_io;
mod datagram_queue;
mod datagram_remote;
mod datagram_socket;
mod datagram_table;
pub(crate) mod driver;
mod failed_connect;
mod frame;
mod groups;
mod id_bits;
mod input;
mod io_state;
mod list;
mod listen_address;
mod listener;
mod loop_context;
mod loop_ref;
mod loop_table;
mod mailbox;
mod membership;
pub(crate) mod passed;
mod proxy_header;
mod relay;
mod remote;
mod resolver;
mod sending;
mod socket_file;
mod socket_settings;
mod spawn;
mod stop;
mod timeouts;
mod timer;
mod write_queue;

pub use conn::Conn;
pub use conn_id::ConnId;
pub use connect_options::ConnectOptions;
pub use datagram::Datagram;
pub use datagram_id::DatagramId;
pub use failed_connect::FailedConnect;
pub use frame::Frame;
pub use loop_ref::LoopRef;
pub use proxy_header::ProxyVersion;
pub use spawn::{Pipes, Spawned};
pub use timeouts::Timeout;

#[cfg(any(test, fuzzing))]
pub(crate) use account::Account;
pub(crate) use account::Budget;
pub(crate) use address_filter::AddressFilter;
pub(crate) use address_table::AddressTable;
pub(crate) use admission::{AddressLimits, Admission, Admitted};
pub(crate) use bound::Bound;
pub(crate) use conn_id::MAX_CONNECTIONS;
pub(crate) use connect::{ConnectIo, Connects, OpenedConnect, Outcome, ATTEMPTS, TIMERS};
pub(crate) use connection::{Connection, Origin};
pub(crate) use connection_table::ConnectionTable;
pub(crate) use counters::{Counter, Counters, WorkerCounters};
pub(crate) use datagram_io::{DatagramIo, ReceiveBuffer, SLOT as DATAGRAM_SLOT};
pub(crate) use datagram_socket::DatagramSocket;
pub(crate) use frame::Found;
pub(crate) use groups::Groups;
pub(crate) use id_bits::MAX_LOOPS;
pub(crate) use listen_address::ListenAddress;
pub(crate) use listener::Listener;
pub(crate) use loop_context::{LoopContext, StopLoop};
pub(crate) use loop_table::{close_mailbox, open_mailbox, reserve_generations};
pub(crate) use mailbox::{Command, Mailbox, PendingCommand, Reached, CONNECTING};
pub(crate) use proxy_header::{parse as parse_proxy_header, Parsed, LONGEST as LONGEST_PROXY_HEADER};
pub(crate) use relay::RelayWrite;
pub(crate) use socket_settings::{KeepAlive, SocketSettings};
pub(crate) use stop::{encode as encode_stop, StopRequest};
pub(crate) use timeouts::{Clock, Timeouts};
pub(crate) use write_queue::{copy_of, WriteQueue};
