//! How a function of a connection comes to it: at once where this thread can use it, or by its id.

use std::ffi::c_int;
use std::ptr;

use omnipoll::{Conn, ConnId};

use crate::buffer::to_count;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::types::omni_conn;
use crate::{callback_scope, loop_table};

/// The value of the pointer.
pub(crate) fn id_of(conn: *const omni_conn) -> u64 {
    conn.addr() as u64
}

/// What the core names the connection by.
pub(crate) fn conn_id(conn: *const omni_conn) -> ConnId {
    ConnId::from_number(id_of(conn))
}

/// The pointer of that value.
pub(crate) fn handle_of(id: u64) -> *mut omni_conn {
    ptr::without_provenance_mut(id as usize)
}

/// Runs a call that any thread may make: on the connection itself where this thread can use it, or else
/// by its id.
pub(crate) fn call<H: Outcome, E: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> c_int {
    to_c_result(
        function,
        catch_panic(|| match with_conn(conn, |conn| here(conn).into_count()) {
            Some(outcome) => outcome,
            None => call_elsewhere(conn, elsewhere),
        }),
    )
}

#[inline(never)]
fn call_elsewhere<E: Outcome>(
    conn: *const omni_conn,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> Result<c_int, Failure> {
    if conn.is_null() {
        return Err(Failure::new(libc::EINVAL, "the connection is NULL"));
    }
    elsewhere(conn_id(conn)).into_count()
}

/// What `body` makes of the connection, if this thread can use it at once: in a callback of the same loop, or
/// by another of this thread's loops.
#[inline]
fn with_conn<T>(conn: *const omni_conn, body: impl FnOnce(&mut Conn<'_>) -> T) -> Option<T> {
    match callback_scope::with_conn(id_of(conn), body) {
        Ok(outcome) => Some(outcome),
        Err(body) => loop_table::with_conn(conn_id(conn), body),
    }
}

/// Runs a call that only the connection's own loop may make.
pub(crate) fn call_here<H: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
) -> c_int {
    call(function, conn, here, not_here)
}

fn not_here(id: ConnId) -> Result<(), Failure> {
    id.check()?;
    Err(Failure::new(
        libc::EPERM,
        "that is for callbacks of the connection's loop, and for the thread that has made the loop",
    ))
}

/// What a call of the core comes to, as C gets it: 0 or a count, or why not.
pub(crate) trait Outcome {
    fn into_count(self) -> Result<c_int, Failure>;
}

impl Outcome for () {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(0)
    }
}

impl Outcome for usize {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(to_count(self))
    }
}

impl Outcome for c_int {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(self)
    }
}

impl<T: Outcome, E: Into<Failure>> Outcome for Result<T, E> {
    fn into_count(self) -> Result<c_int, Failure> {
        self.map_err(Into::into)?.into_count()
    }
}
