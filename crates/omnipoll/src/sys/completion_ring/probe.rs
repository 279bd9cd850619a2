//! What the kernel has of a loop's ring, found out once, by using it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::thread;

use super::{CompletionRing, TRIES};
use crate::errno::{self, ErrorClass};
use crate::error::{bare, Describe, Error};
use crate::feature::Feature;
use crate::sys::Completion;

/// What the kernel refuses to a ring that it has, once it is known: the errno, or 0.
static REFUSED: OnceLock<Refused> = OnceLock::new();

struct Refused {
    caps: i32,
    incremental: i32,
    min_wait: i32,
}

/// Whether multishot receives can be limited; false until it is known.
pub(super) fn can_be_capped() -> bool {
    REFUSED.get().is_some_and(|refused| refused.caps == 0)
}

impl CompletionRing {
    /// Whether the kernel has all of it, and permits it: Linux 6.1. Found out once, by using it; an
    /// error when the system is too short of something to find out.
    pub(crate) fn is_available() -> io::Result<bool> {
        Ok(Self::unavailable_errno()? == 0)
    }

    /// The errno with which the kernel refuses it, or 0.
    fn unavailable_errno() -> io::Result<i32> {
        static ERRNO: OnceLock<i32> = OnceLock::new();
        if let Some(&errno) = ERRNO.get() {
            return Ok(errno);
        }
        // In a thread of its own: when the ring is gone, the kernel interrupts the thread that made it.
        let probe = thread::Builder::new().spawn(|| Self::probe().map_err(Error::from));
        let panicked = |_| Err(bare(libc::ENOTRECOVERABLE).into());
        let made = probe.describe("pthread_create")?.join().unwrap_or_else(panicked).map_err(io::Error::from);
        match made {
            Err(error) if errno::classify_making(&error) != ErrorClass::Permanent => Err(error),
            made => Ok(*ERRNO.get_or_init(|| errno_of(made))),
        }
    }

    /// Makes one, and finds out what it can do.
    fn probe() -> io::Result<()> {
        let mut ring = Self::new(None)?;
        let caps = ring.takes_a_cap()?;
        let min_wait = if ring.has_min_wait() { 0 } else { libc::EINVAL };
        let _ = REFUSED.set(Refused { caps, incremental: ring.not_incremental, min_wait });
        Ok(())
    }

    /// What a loop's ring uses of the kernel where it can.
    pub(crate) fn features() -> Vec<Feature> {
        let errno = Self::unavailable_errno().unwrap_or_else(|error| errno_of::<()>(Err(error)));
        let refused = if errno == 0 { REFUSED.get() } else { None };
        let tried = |refusal: fn(&Refused) -> i32| match refused.map_or(errno, refusal) {
            0 => Ok(()),
            errno => Err(bare(errno)),
        };
        vec![
            Feature::new("IORING_SETUP_DEFER_TASKRUN", "6.1", tried(|_| 0)),
            Feature::new("IOU_PBUF_RING_INC", "6.12", tried(|refused| refused.incremental)),
            Feature::new("IORING_FEAT_MIN_TIMEOUT", "6.12", tried(|refused| refused.min_wait)),
            Feature::new("multishot receive limit", "6.17", tried(|refused| refused.caps)),
        ]
    }

    /// Whether a wait may have a least time (Linux 6.12).
    pub(super) fn has_min_wait(&self) -> bool {
        self.ring.params().is_feature_min_timeout()
    }

    /// Whether a multishot receive may have a limit (Linux 6.17), as an errno: `EINVAL` before.
    fn takes_a_cap(&mut self) -> io::Result<i32> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"x")?;
        self.is_capped = true;
        self.receive(ours.as_fd(), 0)?;
        for _ in 0..TRIES {
            match self.wait(None) {
                // A signal says nothing about it.
                Err(error) if errno::classify_wait(&error) == ErrorClass::WouldBlock => continue,
                waited => drop(waited?),
            }
            if let Some(Completion::Received { result, .. }) = self.next() {
                return Ok(errno_of(result.map(|chunk| self.recycle(chunk))));
            }
        }
        Err(bare(libc::EINTR))
    }
}

/// 0 when there was no error.
pub(super) fn errno_of<T>(result: io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EINVAL), |_| 0)
}
