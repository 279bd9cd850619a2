//! Pointers to handlers are handlers.

use std::io;
use std::sync::Arc;

use super::handler::Handler;
use crate::net::{Conn, Datagram, DatagramId, FailedConnect, LoopRef, Timeout};
use crate::Event;

/// What a pointer points to handles.
macro_rules! forward_to_handler {
    ($pointer:ty) => {
        impl<H: Handler + ?Sized> Handler for $pointer {
            type State = H::State;

            fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<H::State> {
                (**self).on_open(conn)
            }

            #[inline]
            fn on_data(&self, conn: &mut Conn<'_>, state: &mut H::State, data: &[u8]) {
                (**self).on_data(conn, state, data);
            }

            fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
                (**self).on_connect_error(event_loop, failed);
            }

            fn on_end(&self, conn: &mut Conn<'_>, state: &mut H::State) {
                (**self).on_end(conn, state);
            }

            fn on_drain(&self, conn: &mut Conn<'_>, state: &mut H::State) {
                (**self).on_drain(conn, state);
            }

            fn on_post(&self, conn: &mut Conn<'_>, state: &mut H::State, value: i64) {
                (**self).on_post(conn, state, value);
            }

            fn on_timeout(&self, conn: &mut Conn<'_>, state: &mut H::State, which: Timeout) {
                (**self).on_timeout(conn, state, which);
            }

            fn on_timer(&self, conn: &mut Conn<'_>, state: &mut H::State) {
                (**self).on_timer(conn, state);
            }

            fn on_stop(&self, conn: &mut Conn<'_>, state: &mut H::State) {
                (**self).on_stop(conn, state);
            }

            fn on_close(&self, conn: &mut Conn<'_>, state: H::State, error: Option<io::Error>) {
                (**self).on_close(conn, state, error);
            }

            fn on_interrupt(&self) -> io::Result<()> {
                (**self).on_interrupt()
            }

            fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
                (**self).on_worker_start(event_loop)
            }

            fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
                (**self).on_worker_end(event_loop);
            }

            fn run_worker(&self, serve: &mut dyn FnMut()) {
                (**self).run_worker(serve);
            }

            fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
                (**self).on_event(event_loop, event);
            }

            #[inline]
            fn room(&self) -> usize {
                (**self).room()
            }

            #[inline]
            fn is_pending(&self) -> bool {
                (**self).is_pending()
            }

            fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
                (**self).on_datagram(datagram, data);
            }

            fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
                (**self).on_datagram_error(socket, error);
            }
        }
    };
}

forward_to_handler!(&H);
forward_to_handler!(Arc<H>);
