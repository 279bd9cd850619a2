//! The engine on `select(2)`, by `pselect` for its nanoseconds.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - `fd_set` is a C type for 1,024 descriptors, and `FD_SET` beyond it writes out of bounds.
//!   The kernel takes sets of any size: ours are as large as the highest descriptor needs.
//! - It overwrites its arguments: each call gets copies.
//! - Its cost grows with the highest descriptor, not with how many are watched.
//! - One closed descriptor fails the whole call with `EBADF` and is not named: then each one is
//!   asked whether it is open, and those that aren't are reported.
//! - The kernel skips numbers beyond the process's table of descriptors, which shrinks at
//!   fork(2) and unshare(2): their bits stay as they were. Then there are more than it counts.
//! - One that is closed during the call by another thread looks ready first (`EPOLLNVAL` is in
//!   the kernel's `POLLIN_SET`); the next call reports that it is closed.
//! - Hang-up and errors look like READ and WRITE: HANGUP, ERROR and READ_CLOSED are never set.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::time::Duration;

use super::scan::{ReadyFd, Set};
use super::EngineKind;
use crate::error::no_memory;
use crate::registry::{Registration, Registry};
use crate::sys::descriptor::is_open;
use crate::sys::{check, timeout::timespec};

/// `fd_set` is an array of these, on every little-endian system; on
/// Linux on a big-endian one too.
type Word = libc::c_ulong;
const BITS: usize = Word::BITS as usize;

/// select's three sets, in the order of its arguments and of the bits of READ, WRITE and PRIORITY.
const READY: [libc::c_short; 3] = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];

#[derive(Default)]
pub(crate) struct Sets {
    sets: [Vec<Word>; 3],
    /// How many bits each set has, to pass NULL for an empty one.
    sizes: [usize; 3],
    /// The highest descriptor in any set, plus one.
    nfds: usize,
}

#[derive(Default)]
pub(crate) struct Call {
    sets: [Vec<Word>; 3],
    nfds: usize,
    /// The sets name closed descriptors instead of ready ones.
    closed: bool,
}

impl Set for Sets {
    const KIND: EngineKind = EngineKind::Select;
    const END_FLAGS: u8 = 0;
    type Call = Call;

    fn new(waker: RawFd) -> Self {
        let mut sets = Self::default();
        sets.sets.iter_mut().for_each(|set| set.resize(words(waker as usize + 1), 0));
        sets.put(waker, 1);
        sets
    }

    fn reserve(&mut self, fd: RawFd) -> io::Result<()> {
        let wanted = words(fd as usize + 1);
        for set in &mut self.sets {
            let missing = wanted.saturating_sub(set.len());
            set.try_reserve(missing).map_err(no_memory)?;
            set.resize(set.len() + missing, 0);
        }
        Ok(())
    }

    fn update(&mut self, fd: RawFd, registration: &mut Registration) {
        self.put(fd, registration.armed);
    }

    fn remove(&mut self, fd: RawFd, _: &mut Registry) {
        self.put(fd, 0);
    }

    fn snapshot(&self, call: &mut Call) -> io::Result<()> {
        for ((set, size), copy) in self.sets.iter().zip(self.sizes).zip(&mut call.sets) {
            copy.clear();
            if size > 0 {
                let words = &set[..words(self.nfds)];
                copy.try_reserve(words.len()).map_err(no_memory)?;
                copy.extend_from_slice(words);
            }
        }
        call.nfds = self.nfds;
        call.closed = false;
        Ok(())
    }

    fn call(call: &mut Call, timeout: Option<Duration>) -> io::Result<()> {
        match check(select(call, timeout), "select failed") {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => call.keep_closed(),
            Ok(found) if call.bits() > found as usize => call.keep_closed(),
            result => drop(result?),
        }
        Ok(())
    }

    fn visit(call: &Call, from: usize, mut visitor: impl FnMut(ReadyFd) -> ControlFlow<()>) {
        let end = words(call.nfds);
        let first = (from / BITS).min(end);
        // The word where the visit begins is visited twice: its upper part first, the rest last.
        let upper: Word = !0 << (from % BITS);
        let parts = std::iter::once((first, upper))
            .chain((first + 1..end).map(|index| (index, !0)))
            .chain((0..first).map(|index| (index, !0)))
            .chain(std::iter::once((first, !upper)));
        for (index, part) in parts {
            if call.visit_word(index, part, &mut visitor).is_break() {
                return;
            }
        }
    }
}

impl Sets {
    /// Puts a descriptor into the sets whose bits are in `directions`, and out of the others.
    fn put(&mut self, fd: RawFd, directions: u8) {
        let (index, bit) = (fd as usize / BITS, 1 << (fd as usize % BITS));
        for (number, (set, size)) in self.sets.iter_mut().zip(&mut self.sizes).enumerate() {
            let (is_set, must_be_set) = (set[index] & bit != 0, directions >> number & 1 != 0);
            if is_set != must_be_set {
                set[index] ^= bit;
                *size = if must_be_set { *size + 1 } else { *size - 1 };
            }
        }
        if directions != 0 {
            self.nfds = self.nfds.max(fd as usize + 1);
        } else if self.nfds == fd as usize + 1 {
            self.nfds = self.highest_plus_one();
        }
    }

    fn highest_plus_one(&self) -> usize {
        let any = |index: &usize| self.sets.iter().fold(0, |any, set| any | set[*index]);
        let last = (0..words(self.nfds)).rfind(|index| any(index) != 0);
        last.map_or(0, |index| (index + 1) * BITS - any(&index).leading_zeros() as usize)
    }
}

impl Call {
    fn word(&self, set: usize, index: usize) -> Word {
        self.sets[set].get(index).copied().unwrap_or(0)
    }

    fn any(&self, index: usize) -> Word {
        self.word(0, index) | self.word(1, index) | self.word(2, index)
    }

    fn visit_word(
        &self,
        index: usize,
        part: Word,
        visitor: &mut impl FnMut(ReadyFd) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut left = self.any(index) & part;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let position = index * BITS + bit;
            let bits = if self.closed {
                libc::POLLNVAL
            } else {
                let sets = (0..3).filter(|&set| self.word(set, index) >> bit & 1 != 0);
                sets.fold(0, |bits, set| bits | READY[set])
            };
            visitor(ReadyFd { fd: position as RawFd, bits: bits as u16, position })?;
        }
        ControlFlow::Continue(())
    }

    /// How many bits there are in the sets.
    fn bits(&self) -> usize {
        self.sets.iter().flatten().map(|word| word.count_ones() as usize).sum()
    }

    /// Leaves in the sets only what is closed: of what a call has found ready, or has not touched.
    fn keep_closed(&mut self) {
        self.closed = true;
        for fd in 0..self.nfds {
            let (index, bit) = (fd / BITS, 1 << (fd % BITS));
            if self.any(index) & bit != 0 && is_open(fd as RawFd) {
                self.sets.iter_mut().filter_map(|set| set.get_mut(index)).for_each(|word| *word &= !bit);
            }
        }
    }
}

/// How many words hold the bits of the descriptors below `nfds`.
fn words(nfds: usize) -> usize {
    nfds.div_ceil(BITS)
}

fn select(call: &mut Call, timeout: Option<Duration>) -> libc::c_int {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let [read, write, priority] = call.sets.each_mut().map(|set| {
        if set.is_empty() {
            std::ptr::null_mut()
        } else {
            set.as_mut_ptr().cast::<libc::fd_set>()
        }
    });
    // SAFETY: each set that is passed has a bit for every descriptor below `nfds`, which is all
    // the kernel touches of it; the timeout, if any, is readable; the signal mask is left out.
    unsafe { libc::pselect(call.nfds as libc::c_int, read, write, priority, timeout, std::ptr::null()) }
}
