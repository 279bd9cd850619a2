//! What the interpreter must know of forks, and of the threads that serve.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;

use omnipoll::{process_epoch, AroundFork, ServerHandle};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::finalization::attach;
use crate::scoped_ref::this_thread;

/// Set in children that a server has forked, and inherited by theirs.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether a server has forked this process.
pub(crate) fn is_in_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

/// The process whose clients are served: a child that a handler forks by itself is another.
static SERVING: AtomicU32 = AtomicU32::new(0);

/// The last child in which the handlers of `pthread_atfork(3)` ran, as [`process_epoch`] has it, and
/// the thread that forked it: the only one that there is in both processes.
static FORKED_CHILD: AtomicU32 = AtomicU32::new(0);
static FORKING_THREAD: AtomicUsize = AtomicUsize::new(0);

/// Has the forking thread noted in each child from now on.
pub(crate) fn observe() {
    extern "C" fn in_child() {
        FORKED_CHILD.store(process_epoch(), Ordering::Relaxed);
        FORKING_THREAD.store(this_thread(), Ordering::Relaxed);
    }
    // SAFETY: the function may be called in any forked child. Without memory none is noted.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Whether it is the thread that forked this process. No handler runs in a child of `_Fork(3)` or
/// `clone(2)`: there the first thread that asks is taken for it.
pub(crate) fn is_forking_thread(thread: usize) -> bool {
    if FORKED_CHILD.load(Ordering::Relaxed) == process_epoch() {
        FORKING_THREAD.load(Ordering::Relaxed) == thread
    } else {
        this_thread() == thread
    }
}

/// This process serves.
pub(crate) fn serve_here() {
    SERVING.store(process::id(), Ordering::Relaxed);
}

/// Ends a child that a handler has forked by itself, as `sys.exit` asks: there it must neither continue
/// serving nor wait for the clients to be gone.
pub(crate) fn leave_child(py: Python<'_>, failed: &PyErr) {
    if SERVING.load(Ordering::Relaxed) == process::id() {
        return;
    }
    let code = match failed.value(py).getattr("code") {
        Ok(code) if code.is_none() => 0,
        Ok(code) => code.extract::<i64>().map_or(1, |code| code as i32),
        Err(_) => {
            failed.display(py);
            1
        }
    };
    flush(py);
    // SAFETY: takes no pointer, and is meant to end the process.
    unsafe { libc::_exit(code) };
}

/// As `os.fork` surrounds it: the interpreter's locks are taken before and mended after, and the
/// functions of `os.register_at_fork` run.
pub(crate) fn around() -> AroundFork {
    Arc::new(|fork| {
        attach(|py| {
            flush(py);
            // SAFETY: this thread is attached, and each call has its counterpart.
            unsafe { ffi::PyOS_BeforeFork() };
            let pid = fork();
            match pid {
                0 => {
                    IN_CHILD.store(true, Ordering::Relaxed);
                    serve_here();
                    // SAFETY: as above, in the child.
                    unsafe { ffi::PyOS_AfterFork_Child() };
                }
                // SAFETY: as above, in the parent, also when the fork has failed.
                _ => unsafe { ffi::PyOS_AfterFork_Parent() },
            }
            pid
        })
    })
}

/// A child ends by `_exit(2)`, without what its parent has registered with `atexit`; but what
/// it has printed is not to be lost.
pub(crate) fn flush_in_child(py: Python<'_>, server: Option<&ServerHandle>) {
    if IN_CHILD.load(Ordering::Relaxed) && server.is_some_and(|server| server.model().forks()) {
        flush(py);
    }
}

fn flush(py: Python<'_>) {
    for name in ["stdout", "stderr"] {
        // It may be None, or closed.
        let _ =
            py.import("sys").and_then(|sys| sys.getattr(name)).and_then(|file| file.call_method0("flush"));
    }
}

/// Runs it with the interpreter released.
pub(crate) fn detached(py: Python<'_>, run: &mut dyn FnMut()) {
    struct Here<'a>(&'a mut dyn FnMut());
    // SAFETY: it is run by this very thread: nothing is sent. It brings no object of Python's
    // with a token: the core, from which it comes, knows of neither.
    unsafe impl Send for Here<'_> {}
    impl Here<'_> {
        fn run(self) {
            (self.0)();
        }
    }
    let here = Here(run);
    py.detach(move || here.run());
}
