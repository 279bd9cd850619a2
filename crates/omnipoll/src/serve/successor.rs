//! [`Successor`]: the process that is to replace a server, from its start until it serves or has ended.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use super::restart::Restart;
use super::shared::Shared;
use super::tokens;
use crate::error::{fail, Describe};
use crate::event_loop::Core;
use crate::net::passed;
use crate::sys::{child_process, lock, spawn, FIRST_ABOVE_STDIO};
use crate::Interest;

/// Variables that are of the old process alone.
const NOT_PASSED: [&str; 3] = ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];

pub(super) struct Successor {
    pub(super) pid: i32,
    /// By which it says that it serves, and which ends when it does.
    answer: Option<UnixStream>,
    timer: u64,
    is_late: bool,
}

impl Successor {
    /// Starts it, with duplicates of all the sockets that the server listens on. Its answer, its end and its
    /// time are events of the loop.
    pub(super) fn start(shared: &Shared, restart: &Restart, core: &Core) -> io::Result<Self> {
        let (answer, theirs) = UnixStream::pair().describe("socketpair")?;
        answer.set_nonblocking(true).describe("O_NONBLOCK")?;
        let timer = core.poller.timer_add_reserved(restart.timeout, tokens::SUCCESSOR)?;
        let watched = core.poller.add_reserved(answer.as_raw_fd(), Interest::READ, tokens::SUCCESSOR);
        let started = watched.and_then(|()| {
            let pid = start(shared, restart, &theirs)?;
            core.poller.child_add_reserved(pid, tokens::SUCCESSOR).map(|()| pid).inspect_err(|_| {
                child_process::kill(pid, libc::SIGKILL);
                let _ = child_process::reap((libc::P_PID, pid));
            })
        });
        let mut successor = Self { pid: 0, answer: Some(answer), timer, is_late: false };
        match started {
            Ok(pid) => {
                successor.pid = pid;
                Ok(successor)
            }
            Err(error) => {
                successor.forget(core);
                Err(error)
            }
        }
    }

    /// Its socket is readable: whether it says that it serves. One that only closes the socket is killed.
    pub(super) fn serves(&mut self, core: &Core) -> bool {
        let Some(answer) = &mut self.answer else { return false };
        match answer.read(&mut [0]) {
            Ok(1) => {
                self.forget(core);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                self.kill(core);
                false
            }
        }
    }

    /// Its time is up.
    pub(super) fn end_late(&mut self, core: &Core) {
        self.is_late = true;
        self.kill(core);
    }

    /// Ends it; the loop hears of that.
    pub(super) fn kill(&mut self, core: &Core) {
        self.forget(core);
        child_process::kill(self.pid, libc::SIGKILL);
    }

    /// It has ended, with this status: why it does not serve.
    pub(super) fn failure(&mut self, core: &Core, status: i32) -> io::Error {
        self.forget(core);
        if self.is_late {
            return fail(libc::ETIMEDOUT, "the new process did not serve in time, and was killed");
        }
        let how = match status & 0x7f {
            0 => format!("status {}", status >> 8),
            signal => format!("signal {signal}"),
        };
        fail(libc::EPIPE, format!("the new process has ended before it served: {how}"))
    }

    /// Waits for its answer no longer.
    fn forget(&mut self, core: &Core) {
        if let Some(answer) = self.answer.take() {
            let _ = core.poller.remove_reserved(answer.as_raw_fd());
            let _ = core.poller.timer_cancel(self.timer);
        }
    }
}

fn start(shared: &Shared, restart: &Restart, answer: &UnixStream) -> io::Result<i32> {
    let mut own = std::env::args_os();
    let program = restart.program.clone().map(OsString::from).or(own.next());
    let program =
        program.ok_or_else(|| fail(libc::EINVAL, "this system does not say which program this is"))?;
    let arguments = restart.arguments.clone().unwrap_or_else(|| own.collect());
    let arguments = [&program].into_iter().chain(&arguments).map(|text| c_text(text));
    let arguments = arguments.collect::<io::Result<Vec<_>>>()?;
    let bound = lock(&shared.bound);
    let sockets: Vec<BorrowedFd<'_>> = bound.iter().map(AsFd::as_fd).chain([answer.as_fd()]).collect();
    let environment = environment(shared, sockets.len() - 1, answer)?;
    spawn::spawn(&arguments[0], &arguments, &environment, &sockets)
}

fn environment(shared: &Shared, sockets: usize, answer: &UnixStream) -> io::Result<Vec<CString>> {
    let own = ["LISTEN_FDS", passed::LISTEN, passed::RESTART];
    let is_passed = |name: &OsStr| !NOT_PASSED.iter().chain(&own).any(|other| name == *other);
    let inode = spawn::inode(answer.as_raw_fd()).unwrap_or_default();
    let values = [
        sockets.to_string(),
        passed::lines(&lock(&shared.listening)),
        format!("{} {inode}", FIRST_ABOVE_STDIO as usize + sockets),
    ];
    std::env::vars_os()
        .filter(|(name, _)| is_passed(name))
        .chain(own.into_iter().zip(values).map(|(name, value)| (name.into(), value.into())))
        .map(|(mut text, value)| {
            text.push("=");
            text.push(value);
            c_text(&text)
        })
        .collect()
}

fn c_text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| fail(libc::EINVAL, "an argument contains a zero byte"))
}
