//! Children where there are no pidfds: the same tests, in a process whose `pidfd_open(2)` a
//! seccomp filter refuses, as an old kernel does (`ENOSYS`), or a container (`EPERM`).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A filter of the classic Berkeley kind, seccomp(2): this error for that call, and everything
/// else allowed. Async-signal-safe.
fn refuse(call: libc::c_long, errno: i32) -> io::Result<()> {
    let step = |code: u32, if_equal, otherwise, k| libc::sock_filter {
        code: code as u16,
        jt: if_equal,
        jf: otherwise,
        k,
    };
    let mut program = [
        // The first field of seccomp_data is the call's number.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through the calls, and its length is its own.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    done.then_some(()).ok_or_else(io::Error::last_os_error)
}

#[track_caller]
fn test_children_when_refused_with(errno: i32) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("children::").stdin(Stdio::null());
    let filter = move || {
        refuse(libc::SYS_pidfd_open, errno)?;
        // SAFETY: takes no pointer.
        let refused = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) } == -1;
        let error = io::Error::last_os_error();
        match refused && error.raw_os_error() == Some(errno) {
            true => Ok(()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    };
    // SAFETY: the filter is set by system calls alone.
    let output = unsafe { command.pre_exec(filter) }.output().expect("a process with a filter");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" passed; 0 failed") && !said.contains(" 0 passed"), "nothing was run: {said}");
}

#[test]
fn an_old_kernel() {
    test_children_when_refused_with(libc::ENOSYS);
}

#[test]
fn a_container() {
    test_children_when_refused_with(libc::EPERM);
}
