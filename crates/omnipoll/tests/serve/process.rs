//! Processes: forked, killed, looked at.

use std::time::{Duration, Instant};

use crate::support::expect::LONG;

/// A forked child, which is killed when this goes out of scope.
pub(crate) struct Process {
    pub(crate) pid: i32,
    ended: bool,
}

/// Forks; `None` in the child, which is killed when its parent dies.
pub(crate) fn fork() -> Option<Process> {
    // SAFETY: the child continues in Rust code. The threads that its parent may have hold no lock
    // of ours, and libc makes its allocator usable in the child.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: takes no pointer.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            None
        }
        pid => {
            assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
            Some(Process { pid, ended: false })
        }
    }
}

impl Process {
    /// Waits for its end: its status as waitpid(2) returns it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: the status is writable during the call.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(waited, self.pid, "waitpid: {}", std::io::Error::last_os_error());
        self.ended = true;
        status
    }

    pub(crate) fn signal(&self, signo: i32) {
        kill(self.pid, signo);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            kill(self.pid, libc::SIGKILL);
            self.wait();
        }
    }
}

pub(crate) fn kill(pid: i32, signo: i32) {
    assert!(pid > 1, "not a child's number");
    // SAFETY: takes no pointer.
    unsafe { libc::kill(pid, signo) };
}

/// The state of a process, as the kernel's letter for it, if it is there.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The children of a process, whatever state they are in.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// Whether a process has ended and has not been reaped.
pub(crate) fn is_zombie(pid: i32) -> bool {
    state(pid) == Some('Z')
}

/// Whether it runs.
pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < end, "it never came to pass that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An option of a socket that is a number.
pub(crate) fn socket_option(fd: i32, level: i32, name: i32) -> i32 {
    let (mut value, mut size) = (0, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the value has the room that its size says.
    let got = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut size) };
    assert_eq!(got, 0, "getsockopt: {}", std::io::Error::last_os_error());
    value
}

/// The numbers of the processors on which the calling thread may run.
pub(crate) fn processors() -> Vec<usize> {
    // SAFETY: zeros are an empty set, which the kernel fills, and the macro reads.
    unsafe {
        let mut set = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Gives up being root, if this process is: another user, one group, for good. Returns the user that it is then.
pub(crate) fn drop_privileges() -> u32 {
    const NOBODY: u32 = 65_534;
    // SAFETY: none reads memory: there are no groups.
    unsafe {
        if libc::geteuid() == 0 {
            // The groups first, while it still may.
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setgid(NOBODY), 0);
            assert_eq!(libc::setuid(NOBODY), 0);
            assert_eq!(libc::setuid(0), -1, "it could come back");
        }
        libc::geteuid()
    }
}
