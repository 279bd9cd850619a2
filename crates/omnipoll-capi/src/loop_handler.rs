//! The handler of a loop of the program's: each listener and each connection out may have functions of
//! its own.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::slice;

use omnipoll::{Conn, Datagram, DatagramId, Event, Handler, LoopRef, Timeout};

use crate::handler::omni_handler;

/// What a connection begins with.
#[derive(Clone)]
struct Origin {
    handler: Rc<omni_handler>,
    token: u64,
}

/// The handlers of one loop.
pub(crate) struct LoopCallbacks {
    /// The loop's own, for its events, and where no other is given.
    own: Rc<omni_handler>,
    /// The others that are in use.
    others: RefCell<Vec<Rc<omni_handler>>>,
    /// What was passed with each address; its index is the token that the core has.
    listeners: RefCell<Vec<Origin>>,
    is_interruptible: bool,
}

impl LoopCallbacks {
    pub(crate) fn new(own: omni_handler, is_interruptible: bool) -> Self {
        Self {
            own: Rc::new(own),
            others: RefCell::default(),
            listeners: RefCell::default(),
            is_interruptible,
        }
    }

    /// Keeps what an address was passed with, and returns the token that the core is to have.
    pub(crate) fn add_listener(&self, handler: Option<omni_handler>, token: u64) -> u64 {
        let origin = Origin { handler: self.shared(handler), token };
        let mut listeners = self.listeners.borrow_mut();
        listeners.push(origin);
        listeners.len() as u64 - 1
    }

    /// The address that was added last is not listened on.
    pub(crate) fn remove_listener(&self) {
        self.listeners.borrow_mut().pop();
    }

    /// One that is the same is kept once.
    fn shared(&self, handler: Option<omni_handler>) -> Rc<omni_handler> {
        let Some(handler) = handler else { return self.own.clone() };
        let mut others = self.others.borrow_mut();
        let same = others.iter().chain([&self.own]).find(|other| bytes(other) == bytes(&handler));
        if let Some(same) = same {
            return same.clone();
        }
        others.retain(|other| Rc::strong_count(other) > 1);
        let handler = Rc::new(handler);
        others.push(handler.clone());
        handler
    }

    fn handler_of(&self, token: u64) -> Rc<omni_handler> {
        self.listener(token).map_or(self.own.clone(), |origin| origin.handler)
    }

    fn listener(&self, token: u64) -> Option<Origin> {
        self.listeners.borrow().get(token as usize).cloned()
    }
}

fn bytes(handler: &omni_handler) -> &[u8] {
    // SAFETY: as many bytes as it has, none of which is padding.
    unsafe { slice::from_raw_parts(std::ptr::from_ref(handler).cast(), size_of::<omni_handler>()) }
}

impl Handler for LoopCallbacks {
    type State = Rc<omni_handler>;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Rc<omni_handler>> {
        let origin = self.listener(conn.token());
        let Origin { handler, token } = origin.unwrap_or(Origin { handler: self.own.clone(), token: 0 });
        conn.set_token(token);
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

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let handler = match datagram.is_outgoing() {
            true => self.own.clone(),
            false => self.handler_of(datagram.token()),
        };
        handler.datagram(datagram, data);
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let handler = match (socket.is_outgoing(), socket.token()) {
            (Ok(false), Ok(token)) => self.handler_of(token),
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
