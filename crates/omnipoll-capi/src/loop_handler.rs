//! The handler of a loop of the program's: each listener and each connection out may have functions of
//! its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::ptr;
use std::rc::Rc;
use std::slice;

use omnipoll::{Conn, ConnId, Datagram, DatagramId, Event, FailedConnect, Handler, LoopRef, Timeout};

use crate::handler::omni_handler;
use crate::loop_table::handlers_of;

/// Whom a loop calls.
#[derive(Clone, Copy)]
pub(crate) enum Callee {
    /// Its own handler, and others that it was given.
    Handlers,
    /// The handler of its server.
    Server,
    /// It is pulled.
    Nobody,
}

/// The handlers that one loop was given besides its own.
pub(crate) struct Handlers {
    pub(crate) callee: Callee,
    /// Those in use, each of them once.
    all: RefCell<Vec<Rc<omni_handler>>>,
    /// Of connections that were asked for and have not opened yet.
    pending: RefCell<HashMap<ConnId, Pending>>,
}

/// What `omni_loop_connect` was given.
pub(crate) struct Pending {
    /// `None`: the loop's own.
    pub(crate) handler: Option<Rc<omni_handler>>,
    pub(crate) context: *mut c_void,
}

impl Handlers {
    pub(crate) fn new(callee: Callee) -> Self {
        Self { callee, all: RefCell::default(), pending: RefCell::default() }
    }

    /// One that is the same is kept once.
    pub(crate) fn share(&self, handler: omni_handler) -> Rc<omni_handler> {
        let mut all = self.all.borrow_mut();
        if let Some(same) = all.iter().find(|other| bytes(other) == bytes(&handler)) {
            return same.clone();
        }
        all.retain(|other| Rc::strong_count(other) > 1);
        let handler = Rc::new(handler);
        all.push(handler.clone());
        handler
    }

    pub(crate) fn add_pending(&self, id: ConnId, pending: Pending) {
        // Most have neither.
        if pending.handler.is_some() || !pending.context.is_null() {
            self.pending.borrow_mut().insert(id, pending);
        }
    }
}

/// What the connection out was asked for with, once.
pub(crate) fn take_pending(event_loop: &LoopRef<'_>, id: ConnId) -> Pending {
    let pending = handlers_of(event_loop).and_then(|handlers| handlers.pending.borrow_mut().remove(&id));
    pending.unwrap_or(Pending { handler: None, context: ptr::null_mut() })
}

fn bytes(handler: &omni_handler) -> &[u8] {
    // SAFETY: as many bytes as it has, none of which is padding.
    unsafe { slice::from_raw_parts(ptr::from_ref(handler).cast(), size_of::<omni_handler>()) }
}

/// The functions that one loop of the program's calls.
pub(crate) struct LoopCallbacks {
    /// The loop's own, for its events, and where no other is given.
    own: Rc<omni_handler>,
    /// What was passed with each address; its index is the token that the core has.
    listeners: RefCell<Vec<Listener>>,
    is_interruptible: bool,
}

#[derive(Clone)]
struct Listener {
    handler: Rc<omni_handler>,
    token: u64,
}

impl LoopCallbacks {
    pub(crate) fn new(own: omni_handler, is_interruptible: bool) -> Self {
        Self { own: Rc::new(own), listeners: RefCell::default(), is_interruptible }
    }

    /// Keeps what an address was passed with, and returns the token that the core is to have.
    pub(crate) fn add_listener(&self, handler: Option<Rc<omni_handler>>, token: u64) -> u64 {
        let mut listeners = self.listeners.borrow_mut();
        listeners.push(Listener { handler: handler.unwrap_or_else(|| self.own.clone()), token });
        listeners.len() as u64 - 1
    }

    /// The address that was added last is not listened on.
    pub(crate) fn remove_listener(&self) {
        self.listeners.borrow_mut().pop();
    }

    fn listener(&self, token: u64) -> Listener {
        let known = self.listeners.borrow().get(token as usize).cloned();
        known.unwrap_or_else(|| Listener { handler: self.own.clone(), token })
    }
}

impl Handler for LoopCallbacks {
    type State = Rc<omni_handler>;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Rc<omni_handler>> {
        let handler = if conn.is_outgoing() {
            let id = conn.id();
            let pending = take_pending(&conn.event_loop(), id);
            conn.set_context(pending.context.expose_provenance());
            pending.handler.unwrap_or_else(|| self.own.clone())
        } else {
            let Listener { handler, token } = self.listener(conn.token());
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
            false => self.listener(datagram.token()).handler,
        };
        handler.datagram(datagram, data);
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let handler = match (socket.is_outgoing(), socket.token()) {
            (Ok(false), Ok(token)) => self.listener(token).handler,
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
