//! What the threads of one input share: handles in use, handles of before, and descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use arbitrary::Arbitrary;

const SLOTS: usize = 8;

/// A handle as an argument.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Handle {
    /// What the slot holds: in use, unless another thread has freed it.
    Ours(u8),
    /// What the slot held before.
    Stale(u8),
    /// A handle of another kind of object.
    Foreign(u8),
    Null,
    Garbage(u64),
}

/// The handles of one kind.
#[derive(Default)]
pub(crate) struct Handles {
    now: [AtomicUsize; SLOTS],
    before: [AtomicUsize; SLOTS],
}

impl Handles {
    /// Keeps a handle, and returns the one whose slot it takes: 0 where there was none.
    pub(crate) fn put(&self, slot: u8, handle: usize) -> usize {
        let slot = usize::from(slot) % SLOTS;
        let old = self.now[slot].swap(handle, Relaxed);
        self.before[slot].store(old, Relaxed);
        old
    }

    pub(crate) fn get(&self, handle: Handle, objects: &Objects) -> usize {
        match handle {
            Handle::Ours(slot) => self.now[usize::from(slot) % SLOTS].load(Relaxed),
            Handle::Stale(slot) => self.before[usize::from(slot) % SLOTS].load(Relaxed),
            Handle::Foreign(slot) => {
                let kinds = [&objects.pollers, &objects.servers, &objects.conns];
                kinds[usize::from(slot) % kinds.len()].now[usize::from(slot) / 32].load(Relaxed)
            }
            Handle::Null => 0,
            Handle::Garbage(bits) => bits as usize,
        }
    }

    /// Every handle there is, and none from then on.
    pub(crate) fn take(&self) -> impl Iterator<Item = usize> + '_ {
        self.now.iter().map(|slot| slot.swap(0, Relaxed))
    }
}

/// Everything that one input has.
pub(crate) struct Objects {
    pub(crate) pollers: Handles,
    pub(crate) servers: Handles,
    pub(crate) conns: Handles,
    pub(crate) timers: Handles,
    /// Locked for each use, so that a number is never used after its descriptor was closed here: it
    /// could be the library's by then.
    descriptors: [Mutex<Option<OwnedFd>>; SLOTS],
    file: File,
}

impl Objects {
    pub(crate) fn new() -> Self {
        Self {
            pollers: Handles::default(),
            servers: Handles::default(),
            conns: Handles::default(),
            timers: Handles::default(),
            descriptors: Default::default(),
            file: File::open("/proc/self/exe").expect("the program itself can be read"),
        }
    }

    pub(crate) fn file(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn with<T>(&self, slot: u8, body: impl FnOnce(&mut Option<OwnedFd>) -> T) -> T {
        let slot = &self.descriptors[usize::from(slot) % SLOTS];
        body(&mut slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn open_pipe(&self, slot: u8) {
        if let Ok((reader, writer)) = std::io::pipe() {
            self.with(slot, |place| *place = Some(reader.into()));
            self.with(slot.wrapping_add(1), |place| *place = Some(writer.into()));
        }
    }

    pub(crate) fn open_sockets(&self, slot: u8) {
        if let Ok((ours, theirs)) = UnixStream::pair() {
            self.with(slot, |place| *place = Some(ours.into()));
            self.with(slot.wrapping_add(1), |place| *place = Some(theirs.into()));
        }
    }

    pub(crate) fn close(&self, slot: u8) {
        self.with(slot, |place| drop(place.take()));
    }

    /// The number of a descriptor, or -1. Another thread may close it before it is used.
    pub(crate) fn number(&self, slot: u8) -> RawFd {
        self.with(slot, |place| place.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    pub(crate) fn write(&self, slot: u8, length: usize) {
        self.with(slot, |place| {
            if let Some(mut file) = unblocked(place) {
                let _ = file.write(&[1; u8::MAX as usize][..length]);
            }
        });
    }

    pub(crate) fn read(&self, slot: u8) {
        self.with(slot, |place| {
            if let Some(mut file) = unblocked(place) {
                let _ = file.read(&mut [0; 4096]);
            }
        });
    }
}

/// A copy of a descriptor that never blocks, to read and write it.
fn unblocked(place: &Option<OwnedFd>) -> Option<File> {
    let file = File::from(place.as_ref()?.try_clone().ok()?);
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    Some(file)
}
