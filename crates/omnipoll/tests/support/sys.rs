//! The system calls the tests need and the standard library lacks, each as a safe function.

use std::collections::BTreeSet;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

fn check(result: libc::c_int, call: &str) -> libc::c_int {
    assert!(result >= 0, "{call}: {}", io::Error::last_os_error());
    result
}

/// A descriptor that the kernel has just returned.
fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: every caller passes what a successful system call returned, and it has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

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

/// The reading and the writing end, both non-blocking.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two numbers into an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, "pipe2");
    (own(ends[0]), own(ends[1]))
}

/// Has calls wait that the file can't answer at once.
pub(crate) fn set_blocking(file: &impl AsRawFd) {
    // SAFETY: takes no pointer.
    let flags = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }, "F_GETFL");
    // SAFETY: as above.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) }, "F_SETFL");
}

/// Makes `number` refer to the file of `file`; it must not be in use.
pub(crate) fn dup_to(file: &impl AsRawFd, number: RawFd) -> OwnedFd {
    assert!(!is_open(number), "descriptor {number} is in use");
    // SAFETY: takes no pointer, and the fd is free.
    own(check(unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) }, "dup3"))
}

/// Makes the fd of `old` refer to the file of `new`, without being free in between.
pub(crate) fn replace(new: &impl AsRawFd, old: &impl AsRawFd) {
    // SAFETY: takes no pointer, and both are open during the call.
    check(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) }, "dup3");
}

/// Closes what this process was started with, other than standard input, output and error: a
/// jobserver's pipes, a shell's files.
pub(crate) fn close_inherited() {
    // SAFETY: takes no pointer, and nothing has been opened yet.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) }, "close_range");
}

/// fcntl(2) with a number.
pub(crate) fn fcntl(fd: RawFd, command: i32, argument: i32) -> i32 {
    // SAFETY: the commands that tests use take no pointer.
    check(unsafe { libc::fcntl(fd, command, argument) }, "fcntl")
}

/// Closes these numbers in a forked child, which owns none of them.
pub(crate) fn close_here(numbers: &[RawFd]) {
    for &number in numbers {
        // SAFETY: takes no pointer. The child ends without running the destructors that own them.
        check(unsafe { libc::close(number) }, "close");
    }
}

/// Whether the fd is open.
pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// The descriptors this process has open.
pub(crate) fn open_descriptors() -> BTreeSet<RawFd> {
    let folder = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd");
    let names = folder.map(|entry| entry.expect("an entry").file_name());
    let numbers: Vec<RawFd> =
        names.map(|name| name.to_str().and_then(|name| name.parse().ok()).expect("a number")).collect();
    // The folder's own is among them, and closed by now.
    numbers.into_iter().filter(|&number| is_open(number)).collect()
}

/// An eventfd with that count.
pub(crate) fn eventfd(count: u32) -> OwnedFd {
    // SAFETY: takes no pointer.
    own(check(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd"))
}

/// Anonymous files that no system call can wait for: a Landlock ruleset (Linux 5.13) and a file
/// system's context, where this process may make them.
pub(crate) fn anonymous_files_without_readiness() -> impl Iterator<Item = OwnedFd> {
    // `handled_access_fs` of `struct landlock_ruleset_attr`: to execute a file.
    let attributes: u64 = 1;
    // SAFETY: the attributes are readable for the length that is given.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &attributes, 8, 0) };
    // SAFETY: the name is a string that lives through the call.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1) };
    [ruleset, context].into_iter().filter(|&fd| fd >= 0).map(|fd| own(fd as libc::c_int))
}

/// Files of other kinds than pipes and sockets that have readiness.
pub(crate) fn files_with_readiness() -> Vec<OwnedFd> {
    let file = |path: &str| OwnedFd::from(std::fs::File::open(path).expect("a file of /proc"));
    // SAFETY: none of these takes a pointer.
    let made = unsafe {
        [
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC),
            libc::inotify_init1(libc::IN_CLOEXEC),
            libc::epoll_create1(libc::EPOLL_CLOEXEC),
            libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC),
            libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as libc::c_int,
        ]
    };
    let made = made.into_iter().filter(|&fd| fd >= 0).map(own);
    made.chain([eventfd(0), eventfd(1), file("/proc/self/mountinfo"), file("/proc/mounts")]).collect()
}

/// A named pipe.
pub(crate) fn make_fifo(path: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the path is a string that lives through the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, "mkfifo");
}

/// Gives this thread a table of descriptors of its own, with all that is open.
pub(crate) fn unshare_descriptors() {
    // SAFETY: takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }, "unshare");
}

/// A bare epoll set that watches `file` for reading: something to nest.
pub(crate) fn epoll_of(file: &impl AsRawFd) -> OwnedFd {
    // SAFETY: takes no pointer.
    let set = own(check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1"));
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: the event lives through the call.
    let result =
        unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, file.as_raw_fd(), &mut event) };
    check(result, "epoll_ctl");
    set
}

/// Whether this kernel can wait on epoll in nanoseconds (Linux 5.11).
pub(crate) fn has_epoll_pwait2() -> bool {
    // SAFETY: a bad descriptor is found before any pointer is looked at.
    unsafe { libc::syscall(libc::SYS_epoll_pwait2, -1, 0, 0, 0, 0, 0) };
    io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Gives the sockets that a listening one accepts the largest receive buffer that the system permits.
pub(crate) fn maximize_receive_buffer(listener: &impl AsRawFd) {
    let (most, size) = (1 << 30, size_of::<libc::c_int>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: the option is read from an integer that lives through the call.
    let result =
        unsafe { libc::setsockopt(listener.as_raw_fd(), level, option, (&raw const most).cast(), size) };
    check(result, "SO_RCVBUF");
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

/// Leaves the process room for that many descriptors besides the open ones.
pub(crate) fn leave_descriptors(more: usize) {
    let open = open_descriptors();
    // The limit is one of numbers, and there may be holes among the open ones.
    let free = (0..).filter(|number| !open.contains(number)).nth(more).expect("a number");
    let limit = libc::rlimit { rlim_cur: free as u64, ..descriptor_limit() };
    // SAFETY: the limit is readable during the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, "setrlimit");
}

/// Has SIGALRM end this process when it lasts longer. A forked child needs its own.
pub(crate) fn end_after_seconds(seconds: u32) {
    // SAFETY: takes no pointer.
    unsafe { libc::alarm(seconds) };
}

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
    let path = format!("/proc/{process}/task/{thread}/syscall");
    loop {
        // "running", or the number of the call; -1 is a sleep outside of any.
        let Ok(call) = std::fs::read_to_string(&path) else { return };
        let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
        if number.is_some_and(|number: libc::c_long| number >= 0 && !ON_THE_WAY.contains(&number)) {
            return;
        }
        yield_briefly();
    }
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

/// Has `handler` called for that signal. System calls are not restarted after it.
pub(crate) fn on_signal(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: the action lives through the call and the handler indefinitely.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }, "sigaction");
}

/// What is called for that signal: a handler, or what stands for ignoring it or the default.
pub(crate) fn handler_of(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: the action is writable during the call.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) }, "sigaction");
    action.sa_sigaction
}

/// Sends a signal to one thread of this process.
pub(crate) fn signal_thread(thread: libc::pid_t, signal: libc::c_int) {
    signal_thread_in(std::process::id() as libc::pid_t, thread, signal);
}

/// Sends a signal to one thread of another process.
pub(crate) fn signal_thread_in(process: libc::pid_t, thread: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    check(result as libc::c_int, "tgkill");
}

/// Sends the signal to this process every `period` from now on: indefinitely, for one that handles it.
pub(crate) fn send_every(period: Duration, signal: libc::c_int) {
    // SAFETY: all zeroes is a sigevent that sends no signal yet.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    // SAFETY: all zeroes is a null timer.
    let mut timer: libc::timer_t = unsafe { zeroed() };
    // SAFETY: both live through the call.
    check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) }, "timer_create");
    let every = libc::timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
    let times = libc::itimerspec { it_interval: every, it_value: every };
    // SAFETY: the timer was just made, and the times live through the call.
    check(unsafe { libc::timer_settime(timer, 0, &times, std::ptr::null_mut()) }, "timer_settime");
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

/// Has `destructor` called when this thread ends, after the destructors of its Rust storage.
pub(crate) fn at_thread_exit(destructor: extern "C" fn(*mut libc::c_void)) {
    let mut key = 0;
    // SAFETY: the key is writable for the length of the call, and the destructor a function.
    let made = unsafe { libc::pthread_key_create(&mut key, Some(destructor)) };
    assert_eq!(made, 0, "pthread_key_create");
    // SAFETY: the key was just made. Only a value that is not null is destroyed.
    assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) }, 0, "pthread_setspecific");
}

/// Succeeds in a shell that has inherited no descriptors but 0, 1 and 2.
pub(crate) const NOTHING_ELSE_IS_OPEN: &str =
    r#"for fd in /proc/$$/fd/*; do [ "${fd##*/}" -le 2 ] || [ ! -e "$fd" ] || exit 1; done"#;

/// Makes standard output refer to that file.
pub(crate) fn redirect_output(output: &impl AsRawFd) {
    // SAFETY: takes no pointer.
    check(unsafe { libc::dup2(output.as_raw_fd(), 1) }, "dup2");
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
