//! [`Home`]: what a connection belongs to.

use omnipoll::{Conn, ConnId};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// A Loop, or the workers of a server.
pub(crate) trait Home: Send + Sync {
    /// The object that the connection's loop is.
    fn event_loop(&self, py: Python<'_>, id: ConnId) -> PyResult<Py<PyAny>>;

    /// Acts on the connection outside of the loop's calls, once, if it is there and may be acted on.
    fn with_idle(&self, py: Python<'_>, id: ConnId, act: &mut dyn FnMut(&mut Conn<'_>));
}

/// Why a connection can't be looked into.
pub(crate) fn not_here(id: ConnId) -> PyErr {
    match id.is_open() {
        true => PyOSError::new_err((
            libc::EPERM,
            "only in a call of the handler by the connection's loop, and between the waits of a Loop in its \
             own thread",
        )),
        false => PyOSError::new_err((libc::ESTALE, "the connection is gone")),
    }
}
