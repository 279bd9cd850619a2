//! How a connection's object is made, and what loops and handlers know of it.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use omnipoll::{Conn, ConnId};
use pyo3::prelude::*;

use super::{Home, PyConnection};
use crate::gil_cell::GilCell;

impl PyConnection {
    /// One that a server has accepted.
    pub(crate) fn accepted(py: Python<'_>, conn: &Conn<'_>, home: Arc<dyn Home>) -> Self {
        let connection = Self::made(py, conn.id(), conn.worker(), conn.is_outgoing(), None, home);
        connection.open(conn);
        connection
    }

    /// One that a Loop has accepted.
    pub(crate) fn accepted_by(
        py: Python<'_>,
        conn: &Conn<'_>,
        token: Py<PyAny>,
        home: Arc<dyn Home>,
    ) -> Self {
        let connection = Self::made(py, conn.id(), 0, false, Some(token), home);
        connection.open(conn);
        connection
    }

    /// One that is to be opened.
    pub(crate) fn outgoing(
        py: Python<'_>,
        id: ConnId,
        loop_number: usize,
        token: Py<PyAny>,
        home: Arc<dyn Home>,
    ) -> Self {
        Self::made(py, id, loop_number, true, Some(token), home)
    }

    fn made(
        py: Python<'_>,
        number: ConnId,
        loop_number: usize,
        is_outgoing: bool,
        token: Option<Py<PyAny>>,
        home: Arc<dyn Home>,
    ) -> Self {
        Self {
            number,
            address: OnceLock::new(),
            loop_number,
            is_outgoing,
            token: GilCell::new(py, token),
            home,
            fd: (-1).into(),
            closed: false.into(),
            broken: false.into(),
        }
    }

    /// The connection is there.
    pub(crate) fn open(&self, conn: &Conn<'_>) {
        self.address.get_or_init(|| conn.peer().clone());
        self.fd.store(conn.socket().as_raw_fd(), Ordering::Relaxed);
    }

    pub(crate) fn token(&self, py: Python<'_>) -> Py<PyAny> {
        self.token.borrow(py).as_ref().map_or_else(|| py.None(), |token| token.clone_ref(py))
    }

    /// The connection has ended, and its descriptor may be another file's from now on.
    pub(crate) fn end(&self) {
        self.fd.store(-1, Ordering::Relaxed);
    }

    /// What the core names it by.
    pub(crate) fn core_id(&self) -> ConnId {
        self.number
    }

    /// Whether a write has found it broken, which on_close will report.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
