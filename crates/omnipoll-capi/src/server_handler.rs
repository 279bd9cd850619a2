//! The core's handler of a server.

use std::io;

use omnipoll::{Conn, Datagram, DatagramId, Event, FailedConnect, Handler, LoopRef, Timeout};

use crate::handler::omni_handler;
use crate::loop_table::take_pending;

/// The functions that a server calls, from any thread.
pub(crate) struct Callbacks(pub(crate) omni_handler);

// SAFETY: the caller has promised that the functions and their context may be used by the
// threads of the model it has chosen.
unsafe impl Send for Callbacks {}
// SAFETY: as above, by several at a time.
unsafe impl Sync for Callbacks {}

impl Handler for Callbacks {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        if conn.is_outgoing() {
            let id = conn.id();
            let pending = take_pending(&conn.event_loop(), id);
            conn.set_context(pending.context.expose_provenance());
        }
        self.0.open(conn)
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, (): &mut (), data: &[u8]) {
        self.0.data(conn, data);
    }

    fn on_end(&self, conn: &mut Conn<'_>, (): &mut ()) {
        self.0.end(conn);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, (): &mut ()) {
        self.0.drain(conn);
    }

    fn on_post(&self, conn: &mut Conn<'_>, (): &mut (), value: i64) {
        self.0.post(conn, value);
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, (): &mut (), which: Timeout) {
        self.0.timeout(conn, which);
    }

    fn on_timer(&self, conn: &mut Conn<'_>, (): &mut ()) {
        self.0.timer(conn);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, (): &mut ()) {
        self.0.stop(conn);
    }

    fn on_close(&self, conn: &mut Conn<'_>, (): (), error: Option<io::Error>) {
        self.0.close(conn, error);
    }

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        let pending = take_pending(event_loop, failed.id());
        self.0.connect_error(event_loop, failed, pending.context);
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        self.0.datagram(datagram, data);
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        self.0.event(event_loop, event);
    }

    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        self.0.worker_start(event_loop)
    }

    fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
        self.0.worker_end(event_loop);
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        self.0.datagram_error(socket, &error);
    }
}
