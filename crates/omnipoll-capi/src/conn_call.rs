//! How a function of a connection comes to it: at once where this thread can use it, or by its id.

use std::ffi::c_int;
use std::ptr;

use omnipoll::{Conn, ConnId};

use crate::buffer::to_count;
use crate::error::{call_caught, to_c_result, Failure};
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

/// Runs a call that any thread may make: on the connection itself where this thread can use it, in a callback
/// of the same loop or by another of this thread's loops, or else by its id.
pub(crate) fn call<H: Outcome, E: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> c_int {
    let here = |conn: &mut Conn<'_>| to_c_result(function, here(conn).into_count());
    call_caught(function, || match callback_scope::with_own_conn(id_of(conn), here) {
        Ok(result) => result,
        Err(here) => call_another(function, conn, here, elsewhere),
    })
}

/// For another connection than that whose callback this is. Not inlined, so that the way to that one is
/// short.
#[inline(never)]
fn call_another<E: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> c_int,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> c_int {
    let here = match callback_scope::with_other_conn(id_of(conn), here) {
        Ok(result) => return result,
        Err(here) => here,
    };
    if let Some(result) = loop_table::with_conn(conn_id(conn), here) {
        return result;
    }
    let outcome = match conn.is_null() {
        true => Err(Failure::new(libc::EINVAL, "the connection is NULL")),
        false => elsewhere(conn_id(conn)).into_count(),
    };
    to_c_result(function, outcome)
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
        match self {
            Ok(outcome) => outcome.into_count(),
            Err(error) => Err(failure_of(error)),
        }
    }
}

#[cold]
fn failure_of(error: impl Into<Failure>) -> Failure {
    error.into()
}
