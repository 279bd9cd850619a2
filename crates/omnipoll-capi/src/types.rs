//! What handles stand for. There is nothing behind the pointers.

#![allow(non_camel_case_types)]

/// A poller: descriptors registered with an engine, to be waited for.
pub struct omni_poller(());

/// A server: addresses, a handler, and a model to serve many clients by.
pub struct omni_server(());

/// A connection, as each callback of its handler gets it.
///
/// The value of the pointer is the connection's id, a number that is not used again: a program that
/// has kept the number casts it back.
///
/// In a callback of the connection itself every function acts at once. Anywhere else, on any thread,
/// `omni_conn_write`, `omni_conn_close`, `omni_conn_abort`, `omni_conn_pause`, `omni_conn_resume` and
/// `omni_conn_post` have the connection's own loop act, and `omni_conn_id` answers; the others return
/// -EPERM. Outside of its callbacks a connection that was closed is -ESTALE to all of them but
/// `omni_conn_abort`.
pub struct omni_conn(());

/// A datagram socket of a loop, by which any thread sends at any time.
///
/// The value of the pointer is the socket's id, a number that is not used again: a program that has kept
/// the number casts it back. -ESTALE when the socket is closed, as all of a server's are when it stops.
pub struct omni_datagram_socket(());

/// A datagram that has arrived. Valid only on the thread of the callback that got it, until that
/// returns; then it is -ESTALE.
pub struct omni_datagram(());
