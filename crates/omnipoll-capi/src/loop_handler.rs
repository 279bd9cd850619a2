//! The core's handler of a loop of the program's: each listener and each connection out may have functions
//! of its own.

use std::io;
use std::rc::Rc;

use omnipoll::{Conn, Datagram, DatagramId, Event, FailedConnect, Handler, LoopRef, Timeout};

use crate::handler::omni_handler;
use crate::kept_handlers::{Listener, LoopCallbacks};
use crate::loop_table::take_pending;

impl Handler for LoopCallbacks {
    type State = Rc<omni_handler>;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Rc<omni_handler>> {
        let handler = if conn.is_outgoing() {
            let id = conn.id();
            let pending = take_pending(&conn.event_loop(), id);
            conn.set_context(pending.context.expose_provenance());
            pending.handler.unwrap_or_else(|| self.own.clone())
        } else {
            let Listener { handler, token } = self.listeners.get(conn.token());
            conn.set_token(token);
            handler
        };
        handler.open(conn)?;
        Ok(handler)
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>, data: &[u8]) {
        handler.data(conn, data);
    }

    fn on_end(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>) {
        handler.end(conn);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>) {
        handler.drain(conn);
    }

    fn on_post(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>, value: i64) {
        handler.post(conn, value);
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>, which: Timeout) {
        handler.timeout(conn, which);
    }

    fn on_timer(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>) {
        handler.timer(conn);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, handler: &mut Rc<omni_handler>) {
        handler.stop(conn);
    }

    fn on_close(&self, conn: &mut Conn<'_>, handler: Rc<omni_handler>, error: Option<io::Error>) {
        handler.close(conn, error);
    }

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        let pending = take_pending(event_loop, failed.id());
        let handler = pending.handler.as_ref().unwrap_or(&self.own);
        handler.connect_error(event_loop, failed, pending.context);
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let handler = match datagram.is_outgoing() {
            true => self.own.clone(),
            false => self.listeners.get(datagram.token()).handler,
        };
        handler.datagram(datagram, data);
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let handler = match (socket.is_outgoing(), socket.token()) {
            (Ok(false), Ok(token)) => self.listeners.get(token).handler,
            _ => self.own.clone(),
        };
        handler.datagram_error(socket, &error);
    }

    fn on_interrupt(&self) -> io::Result<()> {
        match self.is_interruptible {
            true => Err(io::Error::from_raw_os_error(libc::EINTR)),
            false => Ok(()),
        }
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        self.own.event(event_loop, event);
    }
}
