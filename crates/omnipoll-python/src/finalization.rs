//! Threads that outlive the interpreter.
//!
//! While the interpreter ends, CPython before 3.14 ends a daemon thread that comes back for the
//! interpreter's lock by `pthread_exit`, which on glibc unwinds the thread's stack. No frame of Rust
//! may be unwound by that: the process is aborted. From 3.14 on such a thread waits until the process
//! is gone, and so it does here.
//!
//! What unwinds is asked for the handlers of `pthread_cleanup_push(3)` before each frame, and a
//! handler whose buffer is not on the stack counts as being of the first. So each thread that comes
//! to us registers one, which never returns if a frame of this shared object is on the stack. It stays
//! registered as long as the thread lives, and not for a scope of ours: what Python runs after an
//! object's own drop (the finalizer of an attribute, the callback of a weak reference) is called by
//! pyo3.

use pyo3::prelude::*;

pub(crate) use cleanup::protect_thread;

/// Attaches to the interpreter, as [`Python::attach`] does. When that has ended, or is about to, it
/// does not return.
pub(crate) fn attach<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    protect_thread();
    Python::try_attach(body).unwrap_or_else(|| wait_for_process_end())
}

fn wait_for_process_end() -> ! {
    loop {
        // SAFETY: takes no pointer.
        unsafe { libc::pause() };
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod cleanup {
    use super::wait_for_process_end;
    use std::ffi::{c_int, c_void};
    use std::mem::{transmute, zeroed};
    use std::ptr::{from_mut, null_mut};

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

    /// This thread's handler, registered. Its buffer is on the heap: a thread's static storage is in
    /// the memory of its stack.
    struct Handler {
        buffer: *mut Buffer,
        pop: Pop,
    }

    thread_local! {
        static HANDLER: Option<Handler> = Handler::register();
    }

    /// Called before Python may run below a frame of ours: from now on the end of the interpreter
    /// ends this thread below none.
    #[inline]
    pub(crate) fn protect_thread() {
        let _ = HANDLER.try_with(|_| ());
    }

    impl Handler {
        fn register() -> Option<Self> {
            // Looked for by name: the symbols' versions differ from one glibc to the next.
            // SAFETY: the names end with a zero byte.
            let [push, pop] = [c"_pthread_cleanup_push", c"_pthread_cleanup_pop"]
                .map(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
            if push.is_null() || pop.is_null() {
                return None;
            }
            // SAFETY: glibc's functions of these names have these types.
            let (push, pop) =
                unsafe { (transmute::<*mut c_void, Push>(push), transmute::<*mut c_void, Pop>(pop)) };
            let (routine, argument, previous) = (None, null_mut(), null_mut());
            let buffer = Box::into_raw(Box::new(Buffer { routine, argument, cancel_type: 0, previous }));
            // SAFETY: the buffer lives until it is taken back.
            unsafe { push(buffer, stay, null_mut()) };
            Some(Self { buffer, pop })
        }
    }

    impl Drop for Handler {
        fn drop(&mut self) {
            // SAFETY: the thread ends, and has left every scope in which others were registered. The
            // buffer is from `Box::into_raw`, and nothing leads to it any more.
            unsafe {
                (self.pop)(self.buffer, 0);
                drop(Box::from_raw(self.buffer));
            }
        }
    }

    /// Runs whenever a thread ends by `pthread_exit`: in CPython 3.9 and 3.10 every thread does.
    unsafe extern "C" fn stay(_: *mut c_void) {
        if is_below_ours() {
            wait_for_process_end();
        }
    }

    type Trace = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

    extern "C" {
        fn _Unwind_Backtrace(each: Trace, argument: *mut c_void) -> c_int;
        fn _Unwind_GetIP(frame: *mut c_void) -> *const c_void;
    }

    /// A walk from the handler, whose frames are ours, through what has called it and on.
    struct Walk {
        ours: *const c_void,
        has_left: bool,
        is_below_ours: bool,
    }

    fn is_below_ours() -> bool {
        let mut walk = Walk { ours: object_of(stay as *const c_void), has_left: false, is_below_ours: false };
        // SAFETY: `see` takes the walk, which outlives the call.
        unsafe { _Unwind_Backtrace(see, from_mut(&mut walk).cast()) };
        walk.is_below_ours
    }

    unsafe extern "C" fn see(frame: *mut c_void, walk: *mut c_void) -> c_int {
        const GO_ON: c_int = 0;
        // SAFETY: the frame is the unwinder's, and the walk the caller's.
        let (walk, address) = unsafe { (&mut *walk.cast::<Walk>(), _Unwind_GetIP(frame)) };
        let is_ours = object_of(address) == walk.ours;
        walk.is_below_ours |= is_ours && walk.has_left;
        walk.has_left |= !is_ours;
        GO_ON
    }

    /// Where the shared object with this address is loaded.
    fn object_of(address: *const c_void) -> *const c_void {
        // SAFETY: zeros are a valid `Dl_info`, of nothing.
        let mut found: libc::Dl_info = unsafe { zeroed() };
        // SAFETY: looks up any address, and writes to `found` only.
        unsafe { libc::dladdr(address, &mut found) };
        found.dli_fbase
    }
}

/// Elsewhere `pthread_exit` unwinds nothing.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod cleanup {
    pub(crate) fn protect_thread() {}
}
