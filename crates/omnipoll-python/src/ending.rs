//! Threads that outlive the interpreter.
//!
//! While the interpreter ends, CPython before 3.14 ends a daemon thread that comes back for the
//! interpreter's lock by `pthread_exit`, which on glibc unwinds the thread's stack. No frame of Rust
//! may be unwound by that: the process is aborted. From 3.14 on such a thread waits until the process
//! is gone, and so it does here.
//!
//! What unwinds is asked for the handlers of `pthread_cleanup_push(3)` before each frame, and a
//! handler whose buffer is not on the stack counts as being of the first. Such a handler is
//! registered, and never returns, while Python may run below a frame of ours: a handler's method,
//! `fileno()`, `on_finding`, the finalizer of a token.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use pyo3::prelude::*;

/// Attaches to the interpreter, as [`Python::attach`] does. When that has ended, or is about to, it
/// does not return.
pub(crate) fn attach<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    let _stays = Stays::here();
    Python::try_attach(body).unwrap_or_else(|| wait_for_the_end())
}

fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: takes no pointer.
        unsafe { libc::pause() };
    }
}

/// While it lives, the interpreter can't end this thread, only stop it.
pub(crate) struct Stays(PhantomData<*const ()>);

impl Stays {
    #[inline]
    pub(crate) fn here() -> Self {
        cleanup::push();
        Self(PhantomData)
    }
}

impl Drop for Stays {
    #[inline]
    fn drop(&mut self) {
        cleanup::pop();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod cleanup {
    use super::*;
    use std::cell::Cell;
    use std::mem::transmute;
    use std::sync::OnceLock;

    /// `struct _pthread_cleanup_buffer` of glibc's pthread.h, which keeps it for old programs.
    #[repr(C)]
    struct Buffer {
        routine: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
        cancel_type: c_int,
        previous: *mut Buffer,
    }

    type Push = unsafe extern "C" fn(*mut Buffer, unsafe extern "C" fn(*mut c_void), *mut c_void);
    type Pop = unsafe extern "C" fn(*mut Buffer, c_int);

    /// This thread's buffer: on the heap. A thread's static storage is in the memory of its stack.
    struct Registered {
        depth: Cell<u32>,
        buffer: *mut Buffer,
    }

    impl Drop for Registered {
        fn drop(&mut self) {
            // SAFETY: from `Box::into_raw` below; it is not registered, or the thread would not end.
            drop(unsafe { Box::from_raw(self.buffer) });
        }
    }

    thread_local! {
        static REGISTERED: Registered = Registered {
            depth: Cell::new(0),
            buffer: Box::into_raw(Box::new(Buffer {
                routine: None,
                argument: std::ptr::null_mut(),
                cancel_type: 0,
                previous: std::ptr::null_mut(),
            })),
        };
    }

    /// Looked for by name: the symbols' versions differ from one glibc to the next.
    fn functions() -> Option<(Push, Pop)> {
        static FOUND: OnceLock<Option<(Push, Pop)>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            // SAFETY: the names end with a zero byte.
            let [push, pop] = [c"_pthread_cleanup_push", c"_pthread_cleanup_pop"]
                .map(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
            let found = !push.is_null() && !pop.is_null();
            // SAFETY: glibc's functions of these names have these types.
            found.then(|| unsafe {
                (transmute::<*mut c_void, Push>(push), transmute::<*mut c_void, Pop>(pop))
            })
        })
    }

    unsafe extern "C" fn stay(_: *mut c_void) {
        wait_for_the_end()
    }

    /// Registers the handler, if it is not registered already.
    #[inline]
    pub(super) fn push() {
        let _ = REGISTERED.try_with(|it| {
            it.depth.set(it.depth.get() + 1);
            if let (1, Some((push, _))) = (it.depth.get(), functions()) {
                // SAFETY: the buffer is this thread's, and is not registered. It is taken back in the
                // order in which others on this thread are, since this is a scope like theirs.
                unsafe { push(it.buffer, stay, std::ptr::null_mut()) };
            }
        });
    }

    #[inline]
    pub(super) fn pop() {
        let _ = REGISTERED.try_with(|it| {
            it.depth.set(it.depth.get() - 1);
            if let (0, Some((_, pop))) = (it.depth.get(), functions()) {
                // SAFETY: it was registered last of those that are.
                unsafe { pop(it.buffer, 0) };
            }
        });
    }
}

/// Elsewhere `pthread_exit` unwinds nothing.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod cleanup {
    pub(super) fn push() {}
    pub(super) fn pop() {}
}
