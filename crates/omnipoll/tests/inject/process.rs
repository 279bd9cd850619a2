//! The process of a server, and the ones that it forks.

use std::sync::atomic::Ordering;
use std::time::Instant;

use omnipoll::{explain, EngineKind, Model, Server};

use crate::client::PATIENCE;
use crate::plan::Plan;
use crate::server::{addresses, options, Echo};
use crate::supervisor;
use crate::support::sys;

/// A server that runs, its calls under a plan.
pub(crate) struct Process {
    pub(crate) plan: &'static Plan,
    pid: i32,
    pub(crate) port: u16,
    pub(crate) datagram_port: Option<u16>,
}

/// Runs `life` in a forked process that leads a group of its own; what it returns is the exit code.
pub(crate) fn fork(life: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this process has one thread whenever it forks.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: takes no pointer.
            unsafe {
                libc::setpgid(0, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            sys::end_after_seconds(200);
            std::process::exit(life())
        }
        pid => {
            assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
            pid
        }
    }
}

/// How a child has ended, if it has.
pub(crate) fn status_of(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status is writable during the call.
    let waited = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
    (waited != 0).then_some(status)
}

/// Whether it came to be before patience ended.
pub(crate) fn until(mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    true
}

impl Process {
    pub(crate) fn start(model: Model, engine: EngineKind) -> Self {
        let plan = Plan::new();
        let pid = fork(|| serve(plan, model, engine));
        let mut process = Self { plan, pid, port: 0, datagram_port: None };
        assert!(until(|| plan.port.load(Ordering::SeqCst) != 0), "the server never listened");
        process.port = plan.port.load(Ordering::SeqCst) as u16;
        process.datagram_port =
            Some(plan.datagram_port.load(Ordering::SeqCst) as u16).filter(|&port| port != 0);
        process
    }

    pub(crate) fn round(&self) -> Result<usize, String> {
        crate::client::round(self.port, self.datagram_port)
    }

    /// The descriptors that it has open, and its children.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let open = |pid: &str| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        open(&self.pid.to_string()) + children.split_whitespace().map(open).sum::<usize>()
    }

    pub(crate) fn terminate(&self) {
        // SAFETY: takes no pointer.
        unsafe { libc::kill(self.pid, libc::SIGTERM) };
    }

    /// Waits until it has ended: what `run` returned, with its words.
    pub(crate) fn ending(&mut self) -> Result<(i32, String), String> {
        let mut status = None;
        if !until(|| {
            status = status_of(self.pid);
            status.is_some()
        }) {
            return Err(String::from("`run` does not return"));
        }
        let pid = std::mem::replace(&mut self.pid, 0);
        // The group is the server's. Its leader's number was just reaped, but stands for the group while
        // that has members: a child that could not be reaped is one until the system's first process has
        // done it.
        // SAFETY: takes no pointer.
        let is_left = |signo| unsafe { libc::kill(-pid, signo) } == 0;
        let left_children = !until(|| !is_left(0)) && is_left(libc::SIGKILL);
        match (self.plan.ending(), status) {
            (Some((0, _)), Some(0)) if left_children => Err(String::from("processes were left behind")),
            (Some((errno, words)), Some(0)) => Ok((errno, words)),
            (_, Some(status)) => Err(format!("the server's process has ended with status {status:#x}")),
            (_, None) => unreachable!(),
        }
    }

    /// Whether it is about to end, or has ended, by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.plan.ending().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pid != 0 {
            // SAFETY: takes no pointer, and the leader of the group has not been reaped.
            unsafe {
                libc::kill(-self.pid, libc::SIGKILL);
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// What the server's process does. 1 when it has left descriptors behind.
fn serve(plan: &'static Plan, model: Model, engine: EngineKind) -> i32 {
    supervisor::supervise(plan).expect("seccomp");
    let echo = Echo::new();
    let before = sys::open_descriptors().len();
    let served = Server::with_options(echo, options(model, engine)).and_then(|server| {
        let mut ports = Vec::new();
        for address in addresses(model) {
            let address = server.listen(address)?;
            ports.push(address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port"));
        }
        plan.datagram_port.store(ports.get(1).copied().unwrap_or(0), Ordering::SeqCst);
        plan.port.store(ports[0], Ordering::SeqCst);
        server.run()
    });
    plan.disarm();
    // The handler's file has been closed with the server.
    let left = (sys::open_descriptors().len() + 1).saturating_sub(before);
    match served {
        Ok(()) => plan.end(0, ""),
        Err(error) => plan.end(error.raw_os_error().unwrap_or(-1), &explain(&error)),
    }
    if left > 0 {
        eprintln!("{left} descriptors were left open: {:?}", sys::open_descriptors());
        return 1;
    }
    0
}
