//! Starting a program with descriptors of ours, posix_spawn(3), and what it does with them.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int};

use super::descriptor::FIRST_ABOVE_STDIO;
use super::socket;
use crate::error::{fail, system};

/// Starts a program, looked up in `PATH` where its name has no slash, and returns its process. It has `passed`
/// as its descriptors from 3 on, the standard streams of this process, and no signal blocked.
pub(crate) fn spawn(
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    passed: &[BorrowedFd<'_>],
) -> io::Result<i32> {
    let mut actions = Actions::new()?;
    // Above all of the new numbers, so that none of these replaces one that is still to be passed.
    let above = FIRST_ABOVE_STDIO + passed.len() as RawFd;
    let moved = passed.iter().map(|fd| duplicate_above(*fd, above)).collect::<io::Result<Vec<_>>>()?;
    for (number, fd) in (FIRST_ABOVE_STDIO..).zip(&moved) {
        actions.dup(fd, number)?;
    }
    let attributes = Attributes::with_no_signal_blocked()?;
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let mut pid = 0;
    // SAFETY: the texts end with a zero and the arrays with a null pointer; all live during the call.
    check(unsafe {
        libc::posix_spawnp(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Ok(pid)
}

fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with this command takes no pointer.
    let moved = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if moved < 0 {
        return Err(system("a descriptor can't be duplicated"));
    }
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

fn pointers(texts: &[CString]) -> Vec<*mut c_char> {
    texts.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// These functions return the errno.
fn check(errno: c_int) -> io::Result<()> {
    match errno {
        0 => Ok(()),
        errno => Err(fail(errno, format!("posix_spawn failed: {}", crate::error::text_of(errno)))),
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: it is writable, and initialized when the call succeeds.
        unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    fn dup(&mut self, fd: &OwnedFd, number: RawFd) -> io::Result<()> {
        // SAFETY: the actions were initialized.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, fd.as_raw_fd(), number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: they were initialized, and are not used any more.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn with_no_signal_blocked() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        let mut none = MaybeUninit::uninit();
        // SAFETY: both are writable, and initialized when the calls succeed.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            libc::sigemptyset(none.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut attributes.0, none.as_ptr()))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK;
            check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as _))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they were initialized, and are not used any more.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

/// Takes a descriptor that this process was started with: it is closed by `exec`, and when it is dropped.
/// `EBADF` when it is not open. The caller takes each number once, and knows that it was passed to be taken.
pub(crate) fn take_passed(number: RawFd) -> io::Result<OwnedFd> {
    socket::close_on_exec(number)?;
    // SAFETY: it is open, and by the caller's word nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of the inode behind a descriptor, if it is open.
pub(crate) fn inode(number: RawFd) -> Option<String> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills it in when it succeeds; a number that is no file is an error.
    unsafe {
        (libc::fstat(number, status.as_mut_ptr()) == 0).then(|| status.assume_init().st_ino.to_string())
    }
}
