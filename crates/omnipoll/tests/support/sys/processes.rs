//! Processes: forked children and their ends.

use super::{check, end_after_seconds};

/// Has the system reap the children of this process, whose ends are not reported.
pub(crate) fn ignore_children() {
    // SAFETY: the action needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Reaps every child of this process, before anything else can, until the process ends.
pub(crate) fn reap_all_children() {
    std::thread::spawn(|| loop {
        // SAFETY: a status is not asked for.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0 {
            std::thread::yield_now();
        }
    });
}

/// Where a fork leads.
pub(crate) enum Side {
    /// The child has all that its parent had, but for its other threads.
    Child,
    /// The parent must wait for its child.
    Parent(Child),
}

/// A forked child that must be waited for.
#[must_use]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub(crate) fn succeeds(self) {
        assert_eq!(self.status(), 0, "the child failed: see its message above");
    }

    /// Waits for its end, which must be by this signal.
    #[track_caller]
    pub(crate) fn expect_killed_by(self, signo: i32) {
        assert_eq!(self.status(), signo, "the child ended otherwise");
    }

    fn status(self) -> i32 {
        wait_for(self.0)
    }
}

/// Forks. The child ends when its case does: well when it returns, badly when it panics.
pub(crate) fn fork() -> Side {
    // SAFETY: the child runs Rust code after the fork. libc makes its allocator usable there,
    // and nothing else is locked by the threads that the child lacks: where a case forks with
    // other threads alive, they do nothing but call the poller.
    match check(unsafe { libc::fork() }, "fork") {
        0 => {
            end_after_seconds(30);
            Side::Child
        }
        child => Side::Parent(Child(child)),
    }
}

/// Runs `life` in a forked child, which then ends.
pub(crate) fn in_child(life: impl FnOnce()) -> Child {
    match fork() {
        Side::Child => {
            life();
            std::process::exit(0)
        }
        Side::Parent(child) => child,
    }
}

/// A call that forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForkCall {
    Fork,
    /// `_Fork(3)`, which calls no handler of `pthread_atfork(3)`.
    UnderscoreFork,
    /// The bare system call, of which libc doesn't know.
    Clone,
}

type Fork = unsafe extern "C" fn() -> libc::pid_t;

/// `_Fork(3)`, where libc has it.
fn underscore_fork() -> Option<Fork> {
    // SAFETY: the name is a string that lives through the call.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Fork".as_ptr()) };
    // SAFETY: null, or the function of that name, which has this type.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<Fork>>(found) }
}

/// The calls that fork here.
pub(crate) fn fork_calls() -> impl Iterator<Item = ForkCall> {
    let has = |call: &ForkCall| *call != ForkCall::UnderscoreFork || underscore_fork().is_some();
    [ForkCall::Fork, ForkCall::UnderscoreFork, ForkCall::Clone].into_iter().filter(has)
}

/// Forks by that call; the child's number, 0 in the child.
pub(crate) fn fork_by(call: ForkCall) -> libc::pid_t {
    // SAFETY: what the child may do after each is the caller's care. A clone without memory of its
    // own for a stack has a copy of ours.
    let pid = unsafe {
        match call {
            ForkCall::Fork => libc::fork(),
            ForkCall::UnderscoreFork => underscore_fork().expect("_Fork")(),
            ForkCall::Clone => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t,
        }
    };
    check(pid, "fork")
}

/// Executes a program instead of this one.
pub(crate) fn execute(program: &str, arguments: &[&str]) -> ! {
    use std::os::unix::process::CommandExt;
    panic!("{program}: {}", std::process::Command::new(program).args(arguments).exec());
}

/// Ends the process without anything that is done at its end.
pub(crate) fn exit_at_once(status: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(status) }
}

/// Waits for the end of a child, and returns its status.
pub(crate) fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is writable during the call.
    check(unsafe { libc::waitpid(child, &mut status, 0) }, "waitpid");
    status
}
