//! The calls of an `omni_handler`'s functions.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

use omnipoll::{Conn, Datagram, DatagramId, Event, FailedConnect, LoopRef, Timeout};

use crate::callback_scope::{enter, enter_failed, enter_loop, Failed};
use crate::conn_call::handle_of;
use crate::datagram_socket::socket_of;
use crate::error::{errno, to_c_result};
use crate::handler::omni_handler;
use crate::{datagram, loop_table};

/// No error of Linux has a higher number.
const MAX_ERRNO: c_int = 4095;

// SAFETY, in every block: a function of the caller's, with the arguments that the struct's
// documentation promises it.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one comment for all of them")]
impl omni_handler {
    pub(crate) fn open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        let Some(on_open) = self.on_open else { return Ok(()) };
        match enter(conn, |id| unsafe { on_open(handle_of(id), self.context) }) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    #[inline]
    pub(crate) fn data(&self, conn: &mut Conn<'_>, data: &[u8]) {
        let Some(on_data) = self.on_data else { return };
        enter(conn, |id| unsafe { on_data(handle_of(id), data.as_ptr(), data.len(), self.context) });
    }

    pub(crate) fn end(&self, conn: &mut Conn<'_>) {
        match self.on_end {
            Some(on_end) => enter(conn, |id| unsafe { on_end(handle_of(id), self.context) }),
            None => conn.close(),
        }
    }

    pub(crate) fn drain(&self, conn: &mut Conn<'_>) {
        let Some(on_drain) = self.on_drain else { return };
        enter(conn, |id| unsafe { on_drain(handle_of(id), self.context) });
    }

    pub(crate) fn post(&self, conn: &mut Conn<'_>, value: i64) {
        let Some(on_post) = self.on_post else { return };
        enter(conn, |id| unsafe { on_post(handle_of(id), value, self.context) });
    }

    pub(crate) fn timeout(&self, conn: &mut Conn<'_>, which: Timeout) {
        let Some(on_timeout) = self.on_timeout else { return };
        enter(conn, |id| unsafe { on_timeout(handle_of(id), which as u32, self.context) });
    }

    pub(crate) fn timer(&self, conn: &mut Conn<'_>) {
        let Some(on_timer) = self.on_timer else { return };
        enter(conn, |id| unsafe { on_timer(handle_of(id), self.context) });
    }

    pub(crate) fn stop(&self, conn: &mut Conn<'_>) {
        let Some(on_stop) = self.on_stop else { return };
        enter(conn, |id| unsafe { on_stop(handle_of(id), self.context) });
    }

    pub(crate) fn close(&self, conn: &mut Conn<'_>, error: Option<io::Error>) {
        let Some(on_close) = self.on_close else { return };
        let error = error.map_or(0, |error| -errno(&error));
        enter(conn, |id| unsafe { on_close(handle_of(id), error, self.context) });
    }

    /// The one call for a connection that never opened, with why as the thread's last error.
    pub(crate) fn connect_error(
        &self,
        event_loop: &mut LoopRef<'_>,
        failed: &FailedConnect,
        context: *mut c_void,
    ) {
        let Some(on_close) = self.on_close else { return };
        let error = to_c_result("omni_loop_connect", Err(failed.error().into()));
        let failed = Failed { id: failed.id().number(), token: failed.token(), context };
        enter_failed(event_loop, &failed, |id| unsafe { on_close(handle_of(id), error, self.context) });
    }

    pub(crate) fn datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let Some(on_datagram) = self.on_datagram else { return };
        datagram::lend(datagram, |datagram| unsafe {
            on_datagram(datagram, data.as_ptr(), data.len(), self.context);
        });
    }

    pub(crate) fn datagram_error(&self, socket: DatagramId, error: &io::Error) {
        let Some(on_datagram_error) = self.on_datagram_error else { return };
        unsafe { on_datagram_error(socket_of(socket), -errno(error), self.context) };
    }

    pub(crate) fn event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        let Some(on_event) = self.on_event else { return };
        // There is a handle already: by it the program has come to the poller that has the event.
        let Ok(handle) = loop_table::handle_of(event_loop) else { return };
        let event = ptr::from_ref(event).cast();
        enter_loop(event_loop, || unsafe { on_event(handle, event, self.context) });
    }

    pub(crate) fn worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        let Some(on_worker_start) = self.on_worker_start else { return Ok(()) };
        let handle = loop_table::handle_of(event_loop).map_err(|failure| failure.without_words())?;
        let worker = event_loop.worker() as u32;
        match enter_loop(event_loop, || unsafe { on_worker_start(handle, worker, self.context) }) {
            0 => Ok(()),
            error => {
                let is_errno = (-MAX_ERRNO..0).contains(&error);
                Err(io::Error::from_raw_os_error(if is_errno { -error } else { libc::ECANCELED }))
            }
        }
    }

    pub(crate) fn worker_end(&self, event_loop: &mut LoopRef<'_>) {
        let Some(on_worker_end) = self.on_worker_end else { return };
        let Ok(handle) = loop_table::handle_of(event_loop) else { return };
        let worker = event_loop.worker() as u32;
        enter_loop(event_loop, || unsafe { on_worker_end(handle, worker, self.context) });
    }
}
