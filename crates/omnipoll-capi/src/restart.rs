//! `omni_restart_options`: how a server is replaced by a new process.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::mem::offset_of;
use std::path::Path;

use omnipoll::Restart;

use crate::error::Failure;
use crate::option_values::{some_time, texts};
use crate::sized::Sized32;

/// How a server is replaced by a new process: see `omni_server_restart`. 0 is the default in every field: fill
/// the struct with zeros, set `size`, and then what is to differ.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_restart_options {
    /// sizeof(omni_restart_options).
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The words of the new process, with NULL at the end: the program, which is looked for in PATH where it
    /// has no slash, and its arguments. NULL: those of this process, which finds a newer program that has
    /// replaced the file. Copied by `omni_server_new`.
    pub arguments: *const *const c_char,
    /// How long the new process has until it serves; after it, it is killed. 0: one minute.
    pub timeout_ns: i64,
    /// Called with the outcome, by the thread in `omni_server_run`: the new process's number, or why this one
    /// goes on: -EPIPE, it has ended before it served; -ETIMEDOUT, it took too long, and was killed;
    /// -ECANCELED, this server was stopped meanwhile; or what posix_spawn(3) says, such as -ENOENT.
    pub on_done: Option<unsafe extern "C" fn(outcome: c_int, context: *mut c_void)>,
    /// For `on_done`. The caller's, and in use until the server was freed and has ended.
    pub context: *mut c_void,
}

// SAFETY: as declared above; each zero is a number's or NULL.
unsafe impl Sized32 for omni_restart_options {
    const MIN_SIZE: usize = offset_of!(Self, context) + size_of::<usize>();
    const UNSET: &'static str = "the size of the restart options is not set";
}

struct Done {
    call: unsafe extern "C" fn(c_int, *mut c_void),
    context: *mut c_void,
}

// SAFETY: the caller has promised that the thread of `omni_server_run` may use them.
unsafe impl Send for Done {}
// SAFETY: as above.
unsafe impl Sync for Done {}

impl Done {
    fn report(&self, outcome: io::Result<i32>) {
        let outcome = outcome.unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO));
        // SAFETY: as the struct's documentation says.
        unsafe { (self.call)(outcome, self.context) };
    }
}

impl omni_restart_options {
    /// As the core takes them.
    ///
    /// # Safety
    /// `arguments` is NULL, or texts with NULL at their end.
    pub(crate) unsafe fn translate(&self) -> Result<Restart, Failure> {
        if self.reserved != 0 {
            return Err(Failure::new(libc::EINVAL, "reserved is not 0"));
        }
        let mut restart = Restart::new();
        // SAFETY: as this function's contract says.
        let words = unsafe { texts(self.arguments) };
        match words.split_first() {
            Some((program, arguments)) => {
                restart = restart.program(Path::new(program)).arguments(arguments.iter().copied());
            }
            None if !self.arguments.is_null() => {
                return Err(Failure::new(libc::EINVAL, "the new process has no program"));
            }
            None => {}
        }
        if let Some(timeout) = some_time(self.timeout_ns) {
            restart = restart.timeout(timeout);
        }
        if let Some(call) = self.on_done {
            let done = Done { call, context: self.context };
            restart = restart.on_done(move |outcome| done.report(outcome));
        }
        Ok(restart)
    }
}
