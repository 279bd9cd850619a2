//! `omni_loop_spawn` and its options.

use std::ffi::{c_char, c_int, CStr, OsStr};
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::ptr;

use omnipoll::{ConnId, Pipes};

use crate::conn_call::handle_of;
use crate::error::Failure;
use crate::event_loop::{calls_nothing, read_handler};
use crate::handler::omni_handler;
use crate::kept_handlers::{Callee, Pending};
use crate::loop_table::{self, call_here};
use crate::option_values::texts;
use crate::sized::{self, Sized32};
use crate::types::{omni_conn, omni_loop};

/// Flag of omni_spawn_options: what is written to a connection, the program reads.
pub const OMNI_SPAWN_STDIN: u32 = 0x1;
/// Flag of omni_spawn_options: a connection receives what the program writes.
pub const OMNI_SPAWN_STDOUT: u32 = 0x2;
/// Flag of omni_spawn_options: a connection receives what the program writes of errors.
pub const OMNI_SPAWN_STDERR: u32 = 0x4;

/// How a program is started. Fill the struct with zeros, set `size`, and then what is wanted.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_spawn_options {
    /// sizeof(omni_spawn_options).
    pub size: u32,
    /// Which standard streams are connections: OMNI_SPAWN_STDIN and so on. The program has the others
    /// from this process.
    pub flags: u32,
    /// The whole environment, "NAME=value" each, with NULL at the end. NULL: this process's.
    pub environment: *const *const c_char,
    /// The directory to start in. NULL: this process's.
    pub directory: *const c_char,
}

// SAFETY: as declared above; each zero is a number's or NULL.
unsafe impl Sized32 for omni_spawn_options {
    const MIN_SIZE: usize = offset_of!(Self, directory) + size_of::<usize>();
    const UNSET: &'static str = "the size of the spawn options is not set";
}

/// A program that was started.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_spawned {
    /// Its process.
    pub pid: i32,
    /// 0.
    pub reserved: u32,
    /// The connections to its streams; NULL for those that were not asked for.
    pub stdin_conn: *mut omni_conn,
    /// What it writes.
    pub stdout_conn: *mut omni_conn,
    /// What it writes of errors.
    pub stderr_conn: *mut omni_conn,
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Starts a program: `arguments` are its words, the program first, which is looked for in PATH when it
/// has no slash, with NULL at the end. Its standard streams are connections of the loop as far as
/// `options` says, each a pair of sockets: they open as other connections out do, with this token and
/// handler (as for `omni_loop_connect`). End the one to its input by `omni_conn_close` or
/// `omni_conn_shutdown` to have it see the end. The program's end is an event of kind OMNI_EVENT_CHILD with
/// this token, whose value is its status as wait(2) has it; the loop reaps it.
///
/// `options` may be NULL: no stream is a connection. `out` may be NULL. Nothing is used after the call.
/// `*out` is written only on success.
///
/// Returns 0, or, with nothing started:
///   -EINVAL: no arguments; a struct's size is not set; an unknown flag; an environment without "="; a
///       handler for a loop that is pulled, or a server's.
///   -ENOENT, -EACCES, or another error of execve(2).
///   -EAGAIN, -ENOMEM: the system has no room for a process.
///   -EMFILE, -ENFILE: too many open files.
///   -EBUSY, -EPERM, -ESTALE: as for `omni_loop_connect`.
///
/// System calls: socketpair, fork, execve, pidfd_open. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_spawn(
    event_loop: *mut omni_loop,
    arguments: *const *const c_char,
    options: *const omni_spawn_options,
    handler: *const omni_handler,
    token: u64,
    out: *mut omni_spawned,
) -> c_int {
    call_here("omni_loop_spawn", event_loop, |event_loop| {
        // SAFETY: NULL or texts with NULL at their end by this function's contract.
        let words = unsafe { texts(arguments) };
        let Some((program, words)) = words.split_first() else {
            return Err(Failure::new(libc::EINVAL, "there is no program"));
        };
        let mut command = Command::new(program);
        command.args(words);
        let mut pipes = Pipes::NONE;
        if !options.is_null() {
            // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
            let options = unsafe { sized::read(options) }?;
            pipes = options.pipes()?;
            // SAFETY: as the struct's documentation says.
            unsafe { options.apply(&mut command) }?;
        }
        // SAFETY: NULL or a struct of the size it says by this function's contract.
        let handler = unsafe { read_handler(handler) }?;
        let handlers = loop_table::handlers_of(event_loop).ok_or(Failure::of(libc::ESTALE))?;
        if handler.is_some() && !matches!(handlers.callee, Callee::Handlers(_)) {
            return Err(calls_nothing());
        }
        let spawned = event_loop.spawn(&mut command, pipes, token)?;
        let handler = handler.map(|handler| handlers.share(handler));
        let streams = [spawned.stdin, spawned.stdout, spawned.stderr];
        for id in streams.into_iter().flatten() {
            handlers.add_pending(id, Pending { handler: handler.clone(), context: ptr::null_mut() });
        }
        if !out.is_null() {
            let [stdin_conn, stdout_conn, stderr_conn] = streams.map(conn_of);
            let spawned =
                omni_spawned { pid: spawned.pid, reserved: 0, stdin_conn, stdout_conn, stderr_conn };
            // SAFETY: not NULL, and so a struct's place by this function's contract.
            unsafe { out.write(spawned) };
        }
        Ok(0)
    })
}

impl omni_spawn_options {
    fn pipes(&self) -> Result<Pipes, Failure> {
        let known = [
            (OMNI_SPAWN_STDIN, Pipes::STDIN),
            (OMNI_SPAWN_STDOUT, Pipes::STDOUT),
            (OMNI_SPAWN_STDERR, Pipes::STDERR),
        ];
        if self.flags & !known.iter().fold(0, |all, (flag, _)| all | flag) != 0 {
            return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
        }
        let asked = known.into_iter().filter(|(flag, _)| self.flags & flag != 0);
        Ok(asked.fold(Pipes::NONE, |all, (_, pipe)| all | pipe))
    }

    /// # Safety
    /// Its pointers are as it documents them.
    unsafe fn apply(&self, command: &mut Command) -> Result<(), Failure> {
        if !self.directory.is_null() {
            // SAFETY: a text, as the caller promises.
            command.current_dir(OsStr::from_bytes(unsafe { CStr::from_ptr(self.directory) }.to_bytes()));
        }
        if self.environment.is_null() {
            return Ok(());
        }
        command.env_clear();
        // SAFETY: texts with NULL at their end, as the caller promises.
        for text in unsafe { texts(self.environment) } {
            let bytes = text.as_bytes();
            let end = bytes.iter().position(|&byte| byte == b'=').filter(|&end| end > 0);
            let end =
                end.ok_or_else(|| Failure::new(libc::EINVAL, "a part of the environment has no name"))?;
            command.env(OsStr::from_bytes(&bytes[..end]), OsStr::from_bytes(&bytes[end + 1..]));
        }
        Ok(())
    }
}

fn conn_of(id: Option<ConnId>) -> *mut omni_conn {
    id.map_or(ptr::null_mut(), |id| handle_of(id.number()))
}
