//! What is to fail next and what has come of it, in memory that the server and its test share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicIsize, AtomicU32, AtomicU8, Ordering};

use crate::calls::{name_of, Call};

const NOTHING: i64 = -1;

/// All zeroes is a plan: the kernel makes it so.
#[repr(C)]
pub(crate) struct Plan {
    /// The call that fails, if one is to.
    call: AtomicI64,
    /// How many succeed before.
    skip: AtomicU32,
    errno: AtomicI32,
    lasting: AtomicBool,
    injected: AtomicU32,
    seen: [AtomicU32; 1024],
    /// Bytes that the server has allocated.
    pub(crate) allocated: AtomicIsize,
    /// The ports that the server listens on, once it does.
    pub(crate) port: AtomicU32,
    pub(crate) datagram_port: AtomicU32,
    /// Where a [walk](crate::alone::walk) is, and what it has counted.
    pub(crate) step: AtomicU32,
    pub(crate) survived: AtomicU32,
    pub(crate) total: AtomicU32,
    /// What the server has ended with: an errno and its words.
    ended: AtomicBool,
    result: AtomicI32,
    words: [AtomicU8; 256],
}

/// One call that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) call: &'static Call,
    pub(crate) errno: i32,
    /// The first call that fails is this one.
    pub(crate) nth: u32,
    /// So do all that follow.
    pub(crate) lasting: bool,
}

impl Fault {
    /// Whether a server has to continue.
    pub(crate) fn is_survived(&self) -> bool {
        self.call.is_survived(self.errno, self.lasting)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let and_all_that_follow = if self.lasting { "+" } else { "" };
        write!(f, "{} {} {}{and_all_that_follow}", self.call.name, name_of(self.errno), self.nth)
    }
}

impl Plan {
    /// A plan by which nothing fails, seen by forked children too.
    pub(crate) fn new() -> &'static Self {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, to which there is no other reference.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), protection, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        // SAFETY: it is large enough, zeroed, and never unmapped.
        let plan: &Self = unsafe { &*memory.cast() };
        plan.call.store(NOTHING, Ordering::SeqCst);
        plan
    }

    pub(crate) fn arm(&self, fault: &Fault) {
        self.disarm();
        self.skip.store(fault.nth - 1, Ordering::SeqCst);
        self.errno.store(fault.errno, Ordering::SeqCst);
        self.lasting.store(fault.lasting, Ordering::SeqCst);
        self.injected.store(0, Ordering::SeqCst);
        self.call.store(fault.call.number, Ordering::SeqCst);
    }

    /// Stops injecting, and returns how many calls have failed.
    pub(crate) fn disarm(&self) -> u32 {
        self.call.store(NOTHING, Ordering::SeqCst);
        self.injected()
    }

    /// Does what is no part of the test, and must not fail.
    pub(crate) fn without_faults<T>(&self, act: impl FnOnce() -> T) -> T {
        let call = self.call.swap(NOTHING, Ordering::SeqCst);
        let done = act();
        self.call.store(call, Ordering::SeqCst);
        done
    }

    pub(crate) fn injected(&self) -> u32 {
        self.injected.load(Ordering::SeqCst)
    }

    /// A call is about to be made: the error it is to fail with instead.
    pub(crate) fn fault_for(&self, data: &libc::seccomp_data) -> Option<i32> {
        let number = i64::from(data.nr);
        // Memory that isn't a ring's is the allocator's, and what is said aloud is the test's.
        if number == libc::SYS_mmap && data.args[4] as i32 == -1
            || number == libc::SYS_write && data.args[0] <= 2
        {
            return None;
        }
        if let Some(seen) = self.seen.get(number as usize) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        if self.call.load(Ordering::SeqCst) != number {
            return None;
        }
        let errno = self.errno.load(Ordering::SeqCst);
        if self.skip.load(Ordering::SeqCst) > 0 {
            self.skip.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        if !self.lasting.load(Ordering::SeqCst) {
            self.call.store(NOTHING, Ordering::SeqCst);
        }
        self.injected.fetch_add(1, Ordering::SeqCst);
        Some(errno)
    }

    /// Whether that call was ever made.
    pub(crate) fn has_seen(&self, call: &Call) -> bool {
        self.seen[call.number as usize].load(Ordering::Relaxed) > 0
    }

    /// The server's last words.
    pub(crate) fn end(&self, errno: i32, words: &str) {
        self.result.store(errno, Ordering::SeqCst);
        for (to, from) in self.words.iter().zip(words.bytes()) {
            to.store(from, Ordering::SeqCst);
        }
        self.ended.store(true, Ordering::SeqCst);
    }

    /// The errno and the words that the server has ended with.
    pub(crate) fn ending(&self) -> Option<(i32, String)> {
        let bytes = self.words.iter().map(|byte| byte.load(Ordering::SeqCst)).take_while(|&byte| byte != 0);
        let words = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
        self.ended.load(Ordering::SeqCst).then(|| (self.result.load(Ordering::SeqCst), words))
    }
}
