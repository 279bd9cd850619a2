//! What a loop keeps of handlers: its own, and those that listeners and connections out were given.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::ptr;
use std::rc::Rc;
use std::slice;

use omnipoll::ConnId;

use crate::handler::omni_handler;

/// Whom a loop calls.
pub(crate) enum Callee {
    /// Its own handler, and others that it was given.
    Handlers(Rc<Listeners>),
    /// The handler of its server.
    Server,
    /// It is pulled.
    Nobody,
}

/// The handlers that one loop was given besides its own, and what they are for.
pub(crate) struct Handlers {
    pub(crate) callee: Callee,
    /// Where it listens.
    pub(crate) addresses: RefCell<Vec<String>>,
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
        Self { callee, addresses: RefCell::default(), all: RefCell::default(), pending: RefCell::default() }
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

    pub(crate) fn take_pending(&self, id: ConnId) -> Option<Pending> {
        self.pending.borrow_mut().remove(&id)
    }
}

fn bytes(handler: &omni_handler) -> &[u8] {
    // SAFETY: as many bytes as it has, none of which is padding.
    unsafe { slice::from_raw_parts(ptr::from_ref(handler).cast(), size_of::<omni_handler>()) }
}

/// The functions that one loop of the program's calls.
pub(crate) struct LoopCallbacks {
    /// The loop's own, for its events, and where no other is given.
    pub(crate) own: Rc<omni_handler>,
    pub(crate) listeners: Rc<Listeners>,
    pub(crate) is_interruptible: bool,
}

/// What was passed with each address; its index is the token that the core has.
pub(crate) struct Listeners {
    own: Rc<omni_handler>,
    all: RefCell<Vec<Listener>>,
}

#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) handler: Rc<omni_handler>,
    pub(crate) token: u64,
}

impl LoopCallbacks {
    pub(crate) fn new(own: omni_handler, is_interruptible: bool) -> Self {
        let own = Rc::new(own);
        let listeners = Listeners { own: own.clone(), all: RefCell::default() };
        Self { own, listeners: Rc::new(listeners), is_interruptible }
    }
}

impl Listeners {
    /// Keeps what an address is passed with, if `listen` has no error with the token that the core is to
    /// have.
    pub(crate) fn add<T>(
        &self,
        handler: Option<Rc<omni_handler>>,
        token: u64,
        listen: impl FnOnce(u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let index = self.all.borrow().len() as u64;
        let opened = listen(index)?;
        let handler = handler.unwrap_or_else(|| self.own.clone());
        self.all.borrow_mut().push(Listener { handler, token });
        Ok(opened)
    }

    pub(crate) fn get(&self, token: u64) -> Listener {
        let known = self.all.borrow().get(token as usize).cloned();
        known.unwrap_or_else(|| Listener { handler: self.own.clone(), token })
    }
}
