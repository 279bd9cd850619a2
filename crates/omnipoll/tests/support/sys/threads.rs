//! Threads: which they are, and what they wait in.

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::check;

/// The processor time this thread has used.
pub(crate) fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is writable during the call.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, "clock_gettime");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether this is the thread that the process began with.
pub(crate) fn is_first_thread() -> bool {
    thread_id() == std::process::id() as libc::pid_t
}

/// This thread, as the kernel knows it.
pub(crate) fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// The system calls in which a thread may sleep on its way to a wait: for a lock, for memory.
const ON_THE_WAY: [libc::c_long; 9] = [
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
];

/// Returns once that thread sleeps in the system call of a wait, whichever the engine's is, or
/// has ended: on a busy machine what it waited for may have come before anybody looked.
pub(crate) fn wait_until_asleep(thread: libc::pid_t) {
    wait_until_asleep_in(std::process::id() as libc::pid_t, thread);
}

/// The same of a thread of another process; the first has the number of its process.
pub(crate) fn wait_until_asleep_in(process: libc::pid_t, thread: libc::pid_t) {
    while !is_asleep_in(process, thread) {
        yield_briefly();
    }
}

/// Whether that thread of this process sleeps so, or has ended.
pub(crate) fn is_asleep(thread: libc::pid_t) -> bool {
    is_asleep_in(std::process::id() as libc::pid_t, thread)
}

fn is_asleep_in(process: libc::pid_t, thread: libc::pid_t) -> bool {
    // "running", or the number of the call; -1 is a sleep outside of any.
    let Ok(call) = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")) else {
        return true;
    };
    let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
    number.is_some_and(|number: libc::c_long| number >= 0 && !ON_THE_WAY.contains(&number))
}

/// Returns once that thread [stays in the kernel](block_until_readable).
pub(crate) fn wait_until_blocked(thread: libc::pid_t) {
    let (path, call) = (format!("/proc/self/task/{thread}/syscall"), format!("{} ", libc::SYS_clone));
    while !std::fs::read_to_string(&path).expect("the thread's call").starts_with(&call) {
        yield_briefly();
    }
}

/// Between two looks at what another thread or process is about: not one that takes its processor.
pub(crate) fn yield_briefly() {
    std::thread::sleep(Duration::from_micros(100));
}

/// Keeps this thread in a system call in which nothing interrupts it, neither a signal nor the
/// kernel's own work for it: `vfork(2)`, whose child waits until the file is readable.
pub(crate) fn block_until_readable(file: &impl AsRawFd) {
    extern "C" fn child(poll: *mut libc::c_void) -> libc::c_int {
        // SAFETY: one entry, which lives as long as its owner waits. Should that be killed, the child
        // must not stay indefinitely, with all that it has inherited.
        unsafe { libc::poll(poll.cast(), 1, 60_000) - 1 }
    }
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut stack = vec![0_u128; 4096];
    let (top, poll) = (stack.as_mut_ptr_range().end, &raw mut poll);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has the stack and the entry to itself until it has ended: so long does the
    // call last.
    let pid = check(unsafe { libc::clone(child, top.cast(), flags, poll.cast()) }, "clone");
    // SAFETY: no place for the status is passed.
    check(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, "waitpid");
}

/// Has `destructor` called when this thread ends, after the destructors of its Rust storage.
pub(crate) fn at_thread_exit(destructor: extern "C" fn(*mut libc::c_void)) {
    let mut key = 0;
    // SAFETY: the key is writable for the length of the call, and the destructor a function.
    let made = unsafe { libc::pthread_key_create(&mut key, Some(destructor)) };
    assert_eq!(made, 0, "pthread_key_create");
    // SAFETY: the key was just made. Only a value that is not null is destroyed.
    assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) }, 0, "pthread_setspecific");
}
