//! [`LoopHandler`]: the core's `Handler` of a loop.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::io;
use std::sync::Arc;

use omnipoll::{Conn, Datagram, DatagramId, Event, FailedConnect, Handler, LoopRef, Timeout};
use pyo3::prelude::*;

use super::members::OUTGOING;
use super::pulled::{Kept, Pulled};
use super::shared::Shared;
use crate::connection::{Home, PyConnection};
use crate::finalization::attach;
use crate::methods::{invoke, Call, Failures, Methods};
use crate::{current, event, log};

/// What becomes of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Handlers are called.
    Calls,
    /// It is kept for a list of events.
    Pulled,
    /// No handler is called: the loop was dropped.
    Silent,
}

/// Used in the loop's own thread alone.
pub(crate) struct LoopHandler {
    shared: OnceCell<Arc<Shared>>,
    /// What its connections belong to.
    home: OnceCell<Arc<dyn Home>>,
    mode: Cell<Mode>,
    pulled: RefCell<Pulled>,
    /// It was reported that no handler takes the program's own events.
    has_complained: Cell<bool>,
}

/// What is kept for a connection.
pub(crate) struct Member {
    key: usize,
    methods: Option<Arc<Methods>>,
}

impl LoopHandler {
    pub(super) fn new() -> Self {
        Self {
            shared: OnceCell::new(),
            home: OnceCell::new(),
            mode: Cell::new(Mode::Calls),
            pulled: RefCell::default(),
            has_complained: Cell::new(false),
        }
    }

    pub(super) fn belong_to(&self, shared: Arc<Shared>, home: Arc<dyn Home>) {
        // They were empty.
        let _ = self.shared.set(shared);
        let _ = self.home.set(home);
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.set(mode);
    }

    /// Before the loop runs or waits.
    pub(super) fn prepare(&self, py: Python<'_>, mode: Mode) -> PyResult<()> {
        if let (Mode::Pulled, Some(shared)) = (mode, self.shared.get()) {
            shared.keep_returned(py);
            self.pulled().begin(py)?;
        }
        self.set_mode(mode);
        Ok(())
    }

    pub(super) fn is_pulled(&self) -> bool {
        self.mode.get() == Mode::Pulled
    }

    pub(super) fn pulled(&self) -> RefMut<'_, Pulled> {
        self.pulled.borrow_mut()
    }

    /// Makes a call for a connection, or keeps the event.
    #[inline]
    fn call(
        &self,
        conn: &mut Conn<'_>,
        member: &Member,
        kept: Option<Kept>,
        make: impl FnOnce(&Methods, Call<'_, '_, '_>),
    ) {
        match (self.mode.get(), &member.methods, self.shared.get()) {
            (Mode::Calls, Some(methods), Some(shared)) => attach(|py| {
                let connection = shared.members.borrow(py).connection(py, member.key);
                if let Some(connection) = connection {
                    make(methods, Call { py, conn, connection: &connection, failures: &**shared });
                    connection.drop_ref(py);
                }
            }),
            (Mode::Pulled, ..) => _ = kept.map(|kept| self.pulled().push(kept)),
            _ => {}
        }
    }

    /// The object of a connection that has opened, its key and its handler.
    fn begin(py: Python<'_>, shared: &Shared, home: &Arc<dyn Home>, conn: &Conn<'_>) -> PyResult<Member> {
        let token = conn.token();
        if let Some(key) = token.checked_sub(OUTGOING).map(|key| key as usize) {
            let connection = shared.members.borrow(py).connection(py, key);
            connection.inspect(|connection| connection.get().open(conn));
            return Ok(Member { key, methods: shared.members.borrow(py).methods(key) });
        }
        let (methods, token) = shared.listener(py, token);
        let connection = Py::new(py, PyConnection::accepted_by(py, conn, token, home.clone()))?;
        let mut members = shared.members.borrow(py);
        let key = members.reserve();
        members.set(key, connection, methods.clone());
        Ok(Member { key, methods })
    }

    /// An event of the program's own, handed to the default handler.
    fn report(&self, py: Python<'_>, shared: &Shared, event: &Event) -> PyResult<()> {
        let Some(object) = shared.poller.get().core()?.report(py, event, event::make)? else { return Ok(()) };
        let Some(method) = shared.default.as_ref().and_then(|methods| methods.on_event.as_ref()) else {
            if !self.has_complained.replace(true) {
                let words = "on_event is called for what loop.poller watches, and the handler of Loop() \
                             has none: an event is lost";
                log::warning(py, words);
            }
            return Ok(());
        };
        let Some(event_loop) = shared.object(py) else { return Ok(()) };
        invoke(py, method, event_loop.as_unbound(), Some(object.bind(py))).map(drop)
    }
}

impl Handler for LoopHandler {
    type State = Member;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Member> {
        let refused = || io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let (Some(shared), Some(home)) = (self.shared.get(), self.home.get()) else { return Err(refused()) };
        if self.mode.get() == Mode::Silent {
            return Err(refused());
        }
        attach(|py| {
            let member = Self::begin(py, shared, home, conn)
                .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
            if self.is_pulled() {
                self.pulled().push(Kept::opened(member.key, conn.is_outgoing()));
                return Ok(member);
            }
            let connection = shared.members.borrow(py).connection(py, member.key);
            let (Some(methods), Some(connection)) = (&member.methods, connection) else { return Ok(member) };
            if methods.open(Call { py, conn, connection: &connection, failures: &**shared }) {
                return Ok(member);
            }
            shared.remove(py, member.key);
            Err(refused())
        })
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, member: &mut Member, data: &[u8]) {
        if self.is_pulled() {
            return self.pulled().push_data(member.key, data);
        }
        self.call(conn, member, None, |methods, call| methods.data(call, data));
    }

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        match (self.mode.get(), self.shared.get()) {
            (Mode::Pulled, _) => {
                let kept = Kept::closed((failed.token() - OUTGOING) as usize, Some(failed.error()));
                self.pulled().push(kept);
            }
            (Mode::Calls, Some(shared)) => {
                attach(|py| {
                    current::with_loop(event_loop, shared.as_owner(), || shared.connect_failed(py, failed))
                });
            }
            _ => {}
        }
    }

    fn on_end(&self, conn: &mut Conn<'_>, member: &mut Member) {
        self.call(conn, member, Some(Kept::ended(member.key)), Methods::end);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, member: &mut Member) {
        self.call(conn, member, Some(Kept::drained(member.key)), Methods::drain);
    }

    fn on_post(&self, conn: &mut Conn<'_>, member: &mut Member, value: i64) {
        let kept = Kept::posted(member.key, value);
        self.call(conn, member, Some(kept), |methods, call| methods.post(call, value));
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, member: &mut Member, which: Timeout) {
        self.call(conn, member, None, |methods, call| methods.timeout(call, which));
    }

    fn on_timer(&self, conn: &mut Conn<'_>, member: &mut Member) {
        self.call(conn, member, Some(Kept::timer(member.key)), Methods::timer);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, member: &mut Member) {
        self.call(conn, member, Some(Kept::stopping(member.key)), Methods::stop);
    }

    fn on_close(&self, conn: &mut Conn<'_>, member: Member, error: Option<io::Error>) {
        let Some(shared) = self.shared.get().filter(|_| self.mode.get() != Mode::Silent) else { return };
        if self.is_pulled() {
            let connection = attach(|py| shared.members.borrow(py).connection(py, member.key));
            connection.inspect(|connection| connection.get().end());
            return self.pulled().push(Kept::closed(member.key, error));
        }
        self.call(conn, &member, None, |methods, call| methods.close(call, error));
        attach(|py| {
            let key = member.key;
            drop(member);
            shared.remove(py, key);
        });
    }

    /// Python's own handlers of signals run here, as between two steps of a program.
    fn on_interrupt(&self) -> io::Result<()> {
        self.shared.get().map_or(Ok(()), |shared| shared.ending.check_signals())
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        match (self.mode.get(), self.shared.get()) {
            (Mode::Pulled, _) => self.pulled().push(Kept::own(*event)),
            (Mode::Calls, Some(shared)) => attach(|py| {
                let reported =
                    current::with_loop(event_loop, shared.as_owner(), || self.report(py, shared, event));
                if let Err(failed) = reported {
                    shared.failed(py, failed, format_args!("on_event"));
                }
            }),
            _ => {}
        }
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        match (self.mode.get(), self.shared.get()) {
            (Mode::Pulled, _) => self.pulled().push_datagram(datagram, data),
            (Mode::Calls, Some(shared)) => attach(|py| {
                let (methods, _) = shared.listener(py, datagram.token());
                methods.inspect(|methods| methods.datagram(py, datagram, data, &**shared));
            }),
            _ => {}
        }
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        match (self.mode.get(), self.shared.get()) {
            (Mode::Pulled, _) => self.pulled().push(Kept::datagram_error(socket, error)),
            (Mode::Calls, Some(shared)) => attach(|py| {
                let (methods, _) = shared.listener(py, socket.token().unwrap_or(u64::MAX));
                methods.inspect(|methods| methods.datagram_error(py, socket, &error, &**shared));
            }),
            _ => {}
        }
    }

    #[inline]
    fn room(&self) -> usize {
        match self.mode.get() {
            Mode::Pulled => self.pulled.borrow().room(),
            _ => usize::MAX,
        }
    }

    fn is_pending(&self) -> bool {
        self.is_pulled() && !self.pulled.borrow().is_empty()
    }
}
