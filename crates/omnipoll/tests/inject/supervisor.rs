//! Who is asked before each system call: a thread, by seccomp(2)'s SECCOMP_RET_USER_NOTIF.
//!
//! A filter can't count. It hands the calls of interest to this thread, which answers with an
//! error, or, for all the others, has the kernel continue as if it had never been asked (Linux 5.5).
//! So raw calls are reached that go past every wrapper of libc's. The thread is older than the
//! filter, which therefore doesn't hold for it; threads and processes made later are under it too.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;

use crate::calls::CALLS;
use crate::plan::Plan;
use crate::process::{fork, status_of, until};

/// The listener's number, for forked children that close it.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// Has `plan` decide about the calls that this thread makes from now on, and its descendants.
pub(crate) fn supervise(plan: &'static Plan) -> io::Result<()> {
    let (hand_over, listener) = mpsc::channel();
    std::thread::spawn(move || {
        if let Ok(listener) = listener.recv() {
            answer(&listener, plan);
        }
    });
    let listener = install()?;
    // From Linux 6.6 on, the asking and the answering thread take turns on one processor.
    // SAFETY: takes a number.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1_u64) };
    LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
    let _ = hand_over.send(listener);
    Ok(())
}

/// Whether this kernel and this environment permit it.
pub(crate) fn is_possible() -> bool {
    let plan = Plan::new();
    let child = fork(|| {
        let supervised = supervise(plan);
        // SAFETY: takes no pointer.
        unsafe { libc::fcntl(0, libc::F_GETFD) };
        i32::from(supervised.is_err() || !CALLS.iter().any(|call| plan.has_seen(call)))
    });
    let mut status = None;
    until(|| {
        status = status_of(child);
        status.is_some()
    });
    if status.is_none() {
        // SAFETY: takes no pointer, and the child has not been reaped.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    status == Some(0)
}

/// In a forked child: when its parent has died nothing answers any more, and the calls must fail
/// rather than wait.
pub(crate) fn forget() {
    // SAFETY: the number is the listener's, which nothing in the child uses.
    unsafe { libc::close(LISTENER.load(Ordering::Relaxed)) };
}

fn install() -> io::Result<OwnedFd> {
    let step = |code: u32, if_equal, k| libc::sock_filter { code: code as u16, jt: if_equal, jf: 0, k };
    // The first field of seccomp_data is the call's number.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (number, call) in CALLS.iter().enumerate() {
        let ask = (CALLS.len() - number) as u8;
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, ask, call.number as u32));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (set, flag) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program lives through the calls, which copy it.
    let listener = unsafe {
        // What a process without privileges has to promise.
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, set, flag, &program)
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// Takes no lock and no memory: a thread that has either may be waiting for the answer.
fn answer(listener: &OwnedFd, plan: &Plan) {
    loop {
        // SAFETY: plain old data, which the kernel requires to be zeroed.
        let mut request: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: as above.
        let mut response: libc::seccomp_notif_resp = unsafe { zeroed() };
        // SAFETY: the request is writable during the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut request) } < 0 {
            continue; // A signal; or the asking process has ended.
        }
        plan.allocated.store(crate::memory::allocated(), Ordering::Relaxed);
        response.id = request.id;
        match plan.fault_for(&request.data) {
            Some(errno) => response.error = -errno,
            None => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        }
        // SAFETY: the response lives through the call. It fails when the asking process has ended.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response) };
    }
}
