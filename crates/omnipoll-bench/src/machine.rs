//! The machine under the measurements: its clock, one of its cores, its descriptor limit.

use std::io;
use std::mem::zeroed;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// Settles this thread on the last core it may run on, for the first one takes most interrupts.
pub fn settle_down() {
    if let Some(core) = cores().last() {
        stay_on(*core);
    }
}

/// The cores that this thread may run on.
pub fn cores() -> Vec<usize> {
    // SAFETY: a `cpu_set_t` is plain old data, for which all zeroes is a value; the call is given
    // its size, and a core below CPU_SETSIZE is within it.
    unsafe {
        let mut allowed: libc::cpu_set_t = zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &allowed)).collect()
    }
}

/// Keeps this thread on that core. Panics when there is no such core.
pub fn stay_on(core: usize) {
    assert!(core < libc::CPU_SETSIZE as usize, "a core");
    // SAFETY: as in `cores`.
    unsafe {
        let mut one: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0, "core {core}");
    }
}

/// Lets a connection end with a reset, which leaves neither side with a port in TIME_WAIT.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (level, option, size) = (libc::SOL_SOCKET, libc::SO_LINGER, size_of::<libc::linger>());
    // SAFETY: the option is read from a structure that lives through the call, and is as long.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            option,
            (&raw const linger).cast(),
            size as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// What another process has spent of the processors' time, in all its threads, user and system.
pub struct ProcessClock(libc::clockid_t);

impl ProcessClock {
    /// The clock of a process. Fails when there is no such process.
    pub fn of(pid: libc::pid_t) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the call fills an integer that lives through it.
        match unsafe { libc::clock_getcpuclockid(pid, &mut clock) } {
            0 => Ok(Self(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Nanoseconds since it began; exact while it is asleep, and a tick late while it runs.
    pub fn nanoseconds(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call fills a structure that lives through it.
        let result = unsafe { libc::clock_gettime(self.0, &mut time) };
        assert_eq!(result, 0, "the process is there");
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Raises the descriptor limit as far as is allowed, up to `wanted`, and returns what it is then.
pub fn raise_descriptor_limit(wanted: u64) -> u64 {
    let set = |limit: libc::rlimit| {
        // SAFETY: the call reads a structure that lives through it.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 }
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills a structure that lives through it.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if limit.rlim_cur >= wanted {
        return limit.rlim_cur;
    }
    let granted = [wanted.max(limit.rlim_max), limit.rlim_max]
        .into_iter()
        .find(|&most| set(libc::rlimit { rlim_cur: wanted.min(most), rlim_max: most }));
    granted.map_or(limit.rlim_cur, |most| wanted.min(most))
}

/// The nanoseconds that `work` takes, without what reading the clock takes.
pub fn time(clock: &Clock, work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    (begin.elapsed().as_nanos() as f64 - clock.cost).max(0.0)
}

/// What it takes to read the clock, in nanoseconds; by default nothing.
#[derive(Default)]
pub struct Clock {
    cost: f64,
}

impl Clock {
    /// Measures it.
    pub fn measured() -> Self {
        let mut empty: Vec<_> = (0..10_000).map(|_| time(&Self::default(), || ())).collect();
        Self { cost: crate::figures::middle(&mut empty) }
    }
}

/// The bytes that the system's allocator has handed out and not got back.
pub fn allocated() -> f64 {
    // SAFETY: takes no pointer.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64
}

/// The processor time that this thread has used, in nanoseconds.
pub fn thread_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills a structure that lives through it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
