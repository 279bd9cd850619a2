//! What this process may have: memory, descriptors, system calls.

use std::io;

use super::{check, open_descriptors};

/// Lets this process map no more than `left` bytes of memory besides what it has.
#[cfg(target_os = "linux")]
pub(crate) fn limit_memory(left: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    // SAFETY: takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let limit = libc::rlimit { rlim_cur: pages * page + left, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, "setrlimit");
}

/// Whether this kernel can wait on epoll in nanoseconds (Linux 5.11).
pub(crate) fn has_epoll_pwait2() -> bool {
    // SAFETY: a bad descriptor is found before any pointer is looked at.
    unsafe { libc::syscall(libc::SYS_epoll_pwait2, -1, 0, 0, 0, 0, 0) };
    io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// The version of this kernel, as far as it shows what it has.
pub(crate) fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Has a system call fail with `errno` in this process from now on, as it does on a kernel that
/// lacks it or in a container that forbids it.
pub(crate) fn forbid(call: libc::c_long, errno: i32) {
    const LOAD_THE_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const GO_ON_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = [
        step(LOAD_THE_NUMBER, 0, 0),
        step(GO_ON_IF_EQUAL, 1, call as u32),
        step(ANSWER, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(ANSWER, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, "prctl");
    // SAFETY: the program and its four steps live through the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    check(result, "seccomp");
}

/// The limit of descriptors: what it is, and what it may be raised to.
fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is writable during the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, "getrlimit");
    limit
}

/// Lets the process have `wanted` descriptors, or as many as it may: how many that is now.
/// Being given less is printed, and an error where the process is allowed to raise its limits.
pub(crate) fn allow_descriptors(wanted: u64) -> u64 {
    let limit = descriptor_limit();
    let raised = libc::rlimit { rlim_cur: wanted.max(limit.rlim_cur), rlim_max: wanted.max(limit.rlim_max) };
    // SAFETY: the limit is readable during the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        return wanted;
    }
    let most = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &most) }, "setrlimit");
    assert!(!may_raise_limits(), "this process should be given {wanted} descriptors");
    println!("only {} descriptors instead of {wanted}: the hard limit of RLIMIT_NOFILE", limit.rlim_max);
    limit.rlim_max
}

/// Whether the process has CAP_SYS_RESOURCE.
fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
    u64::from_str_radix(effective.trim(), 16).expect("a mask") >> CAP_SYS_RESOURCE & 1 != 0
}

/// Forbids the process to open more than it has open.
pub(crate) fn forbid_more_descriptors() {
    limit_descriptors(0);
}

/// Lowers the limit of descriptors, below what is open too.
pub(crate) fn limit_descriptors(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, ..descriptor_limit() };
    // SAFETY: the limit is readable during the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, "setrlimit");
}

/// Leaves the process room for that many descriptors besides the open ones.
pub(crate) fn leave_descriptors(more: usize) {
    let open = open_descriptors();
    // The limit is one of numbers, and there may be holes among the open ones.
    let free = (0..).filter(|number| !open.contains(number)).nth(more).expect("a number");
    let limit = libc::rlimit { rlim_cur: free as u64, ..descriptor_limit() };
    // SAFETY: the limit is readable during the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, "setrlimit");
}
