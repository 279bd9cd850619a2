//! A server that is run step by step.

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use crate::error::Failure;
use crate::event_loop::time_limit;
use crate::server::call;
use crate::started_servers::{self, Started};
use crate::types::omni_server;

/// Makes one step with a server, which is started if it was not. One that has been freed ends here.
fn step(
    function: &str,
    server: *mut omni_server,
    body: impl FnOnce(&mut Started) -> Result<c_int, Failure>,
) -> c_int {
    let mut started = started_servers::take(server.addr());
    let found = call(function, server, |serving| {
        if started.is_none() {
            started = Some(serving.start()?);
        }
        Ok(0)
    });
    let Some(mut started) = started.filter(|_| found == 0) else { return found };
    let stepped = catch_unwind(AssertUnwindSafe(|| body(&mut started)));
    let mut kept = Some(started);
    let result = call(function, server, |_| {
        let stepped = stepped.unwrap_or_else(|panic| resume_unwind(panic));
        if let Some(started) = kept.take() {
            started_servers::keep(server.addr(), started);
        }
        stepped
    });
    // Freed meanwhile: the last callbacks are made now.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(kept)));
    result
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Serves step by step, in place of `omni_server_run`: waits once, for at most `timeout_ns` nanoseconds
/// (negative: indefinitely; 0: looks and returns), and serves what has come. Returns after every wait, also
/// when what came was the server's own business. Only under OMNI_MODEL_REACTOR.
///
/// The first call starts the server, and all that follow are made by the same thread, which also frees
/// it: `omni_server_free` resets its connections at once, or in a callback when the step returns.
/// Freed by another thread it is reset by the next step, which returns -ESTALE.
///
/// Returns 1; 0 when the server was stopped and every client has gone, then and from then on; or:
///   -ENOTSUP: another model.
///   -EINVAL: the server runs already, in this thread or another, or has run.
///   -EOWNERDEAD, -EMFILE, -ENFILE, -ESTALE: as for `omni_server_run`.
///
/// System calls: those of `omni_server_run`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_run_once(server: *mut omni_server, timeout_ns: i64) -> c_int {
    step("omni_server_run_once", server, |started| Ok(started.run_once(time_limit(timeout_ns))?.into()))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// A descriptor for the loop of GLib, Qt, Node.js or another library, as that of `omni_loop_descriptor`:
/// whenever it is readable, call `omni_server_run_once` with a timeout of 0. It starts the server, as a
/// step does.
///
/// Returns the descriptor, which is the server's, or:
///   -ENOTSUP: another model than OMNI_MODEL_REACTOR; the engine is select or poll.
///   -EINVAL, -EOWNERDEAD, -EMFILE, -ENFILE, -ESTALE: as for `omni_server_run_once`.
///
/// System calls: those of `omni_loop_descriptor`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_descriptor(server: *mut omni_server) -> c_int {
    step("omni_server_descriptor", server, |started| Ok(started.descriptor()?.as_raw_fd()))
}
