//! The machine under the measurements: its clock, one of its cores, its descriptor limit.

use std::mem::zeroed;
use std::time::Instant;

/// Settles this thread on the last core it may run on, for the first one takes most interrupts,
/// and with nobody else on it meanwhile, where that is allowed.
pub fn settle_down() {
    let first_come = libc::sched_param { sched_priority: 1 };
    // SAFETY: the call reads a structure that lives through it.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &first_come) };
    // SAFETY: a `cpu_set_t` is plain old data, for which all zeroes is a value; both calls are
    // given its size, and a core below CPU_SETSIZE is within it.
    unsafe {
        let mut allowed: libc::cpu_set_t = zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return;
        }
        let cores = 0..libc::CPU_SETSIZE as usize;
        if let Some(last) = cores.rev().find(|&core| libc::CPU_ISSET(core, &allowed)) {
            let mut one: libc::cpu_set_t = zeroed();
            libc::CPU_SET(last, &mut one);
            libc::sched_setaffinity(0, size, &one);
        }
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

/// What it takes to read the clock, in nanoseconds.
pub struct Clock {
    cost: f64,
}

impl Clock {
    /// Measures it.
    pub fn new() -> Self {
        let mut empty: Vec<_> = (0..10_000).map(|_| time(&Self { cost: 0.0 }, || ())).collect();
        Self { cost: crate::contest::middle(&mut empty) }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
