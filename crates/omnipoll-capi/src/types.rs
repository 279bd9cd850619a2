//! What handles stand for. There is nothing behind the pointers.

#![allow(non_camel_case_types)]

/// A poller: descriptors registered with an engine, to be waited for.
pub struct omni_poller(());

/// A server: addresses, a handler, and a model to serve many clients by.
pub struct omni_server(());

/// An event loop: one thread's connections in and out, datagram sockets, and all else that a program
/// waits for. A server's workers are such loops.
///
/// A loop that a program makes belongs to that thread: for others it is -EPERM, but to `omni_loop_stop`
/// and `omni_loop_poller`. A loop of a server's, which `omni_conn_loop` and callbacks pass, is the
/// server's: what would run, stop or free it is -EPERM.
pub struct omni_loop(());

/// A connection, as each callback of its handler gets it.
///
/// The value of the pointer is the connection's id, a number that is not used again: a program that
/// has kept the number casts it back.
///
/// In a callback of any connection of the same loop, and in the thread that has made the loop when no
/// callback is running, every function acts at once; outside of callbacks the next wait does what
/// follows from it, such as to close the socket. Anywhere else, on any thread, `omni_conn_write`,
/// `omni_conn_close`, `omni_conn_abort`, `omni_conn_pause`, `omni_conn_resume` and `omni_conn_post` have
/// the connection's own loop act, `omni_conn_join` and `omni_conn_leave` act at once, and `omni_conn_id`
/// answers; the others return -EPERM. There a connection that was closed is -ESTALE to all of them but
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
