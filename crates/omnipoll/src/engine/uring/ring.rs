//! The two queues that program and kernel share, and the system calls about them.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue, types, IoUring};

use crate::error::{errno, plain, system, Describe};
use crate::sys::busy_poll;
use crate::sys::descriptor::make_above_stdio;

/// How many requests one system call takes at most.
const REQUESTS: u32 = 256;
/// How many completions there is room for. What comes beyond is kept by the kernel and costs
/// more: a multishot poll ends then, and is submitted again.
const COMPLETIONS: u32 = 4096;

/// The key of requests whose completions are ignored.
pub(super) const IGNORED: u64 = u64::MAX - 1;

/// `IORING_ENTER_*` of linux/io_uring.h.
const GETEVENTS: u32 = 1 << 0;
const EXT_ARG: u32 = 1 << 3;
const NO_IOWAIT: u32 = 1 << 7;

/// A ring. In a forked child, which has its descriptor but none of its memory, it can only be
/// dropped.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    owner: u32,
    /// The flags of every `io_uring_enter`.
    flags: u32,
    busy_poll: Option<Duration>,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    mask: u64,
    mask_size: u32,
    min_wait: u32,
    timeout: u64,
}

/// `struct io_uring_sync_cancel_reg`.
#[repr(C)]
struct SyncCancel {
    user_data: u64,
    fd: i32,
    flags: u32,
    timeout: [i64; 2],
    operation: u8,
    padding: [u8; 7],
    more_padding: [u64; 3],
}

/// Which threads wait on a ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// Always the same thread. The kernel need not interrupt it for its part of the work, which it
    /// does when it next enters the kernel (`IORING_SETUP_COOP_TASKRUN`, Linux 5.19): an event
    /// that comes from another processor costs half of what it does otherwise.
    One,
    /// Several, of which one may compute, until the next tick of its processor, while another
    /// waits for what the first has submitted.
    Several,
}

impl Ring {
    /// With `busy_poll` the kernel looks at network devices for so long before a wait sleeps, if it can.
    pub(super) fn new(threads: Threads, busy_poll: Option<Duration>) -> io::Result<Self> {
        let ring = make_above_stdio(|| Self::build(threads)).describe("io_uring_setup")?;
        let params = ring.params();
        // CQE_SKIP is of Linux 5.17; multishot polls are of 5.13 and have no flag of their own.
        let enough = params.is_feature_nodrop()
            && params.is_feature_poll_32bits()
            && params.is_feature_ext_arg()
            && params.is_feature_skip_cqe_on_success();
        if !enough {
            return Err(plain(libc::EINVAL));
        }
        let flags = GETEVENTS | EXT_ARG | if params.is_feature_no_iowait() { NO_IOWAIT } else { 0 };
        let ring = Self { ring: ManuallyDrop::new(ring), owner: std::process::id(), flags, busy_poll };
        // Before Linux 6.9 it can't.
        busy_poll.map(|time| busy_poll::of_ring(ring.as_fd(), time));
        Ok(ring)
    }

    /// What it was made with.
    pub(super) fn busy_poll(&self) -> Option<Duration> {
        self.busy_poll
    }

    fn build(threads: Threads) -> io::Result<IoUring> {
        if threads == Threads::One {
            match Self::cooperative(REQUESTS) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => return result,
            }
        }
        IoUring::builder().dontfork().setup_cqsize(COMPLETIONS).build(REQUESTS)
    }

    /// One for [a single thread](Threads::One); `EINVAL` before Linux 5.19.
    pub(super) fn cooperative(requests: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS).setup_coop_taskrun().setup_taskrun_flag();
        builder.build(requests)
    }

    /// Puts a poll into the submission queue. False when that is full.
    pub(super) fn poll_add(&mut self, fd: RawFd, bits: u32, multishot: bool, key: u64) -> bool {
        self.push(&opcode::PollAdd::new(types::Fd(fd), bits).multi(multishot).build().user_data(key))
    }

    /// Puts the cancellation of a poll into the submission queue. False when that is full.
    ///
    /// `IORING_OP_POLL_REMOVE` leaves a poll that is just waking (`EALREADY`), and a multishot
    /// one continues then.
    pub(super) fn cancel(&mut self, key: u64) -> bool {
        let request = opcode::AsyncCancel::new(key).build().user_data(IGNORED);
        self.push(&request.flags(squeue::Flags::SKIP_SUCCESS))
    }

    /// In a forked child: its descriptor becomes one of `instead`. The polls of a ring hold their files
    /// as long as any process has the ring open, so that a port would stay bound.
    pub(super) fn leave_to_parent(&self, instead: RawFd) {
        // SAFETY: takes no pointer. The number is ours until the ring is dropped.
        unsafe { libc::dup3(instead, self.ring.as_raw_fd(), libc::O_CLOEXEC) };
    }

    fn push(&mut self, request: &squeue::Entry) -> bool {
        // SAFETY: neither of the two requests refers to any memory.
        unsafe { self.ring.submission().push(request) }.is_ok()
    }

    /// How many requests the kernel has not taken yet.
    pub(super) fn unsubmitted(&mut self) -> u32 {
        self.ring.submission().len() as u32
    }

    /// Whether the kernel keeps completions for which there was no room: the next
    /// [`RingHandle::enter`] brings them.
    pub(super) fn has_overflown(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Whether the kernel has work to do in the thread that waits, which may bring completions.
    pub(super) fn has_task_work(&mut self) -> bool {
        self.ring.submission().taskrun()
    }

    /// The completions that are there.
    pub(super) fn completions(&mut self) -> cqueue::CompletionQueue<'_> {
        self.ring.completion()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        Self::descriptor_of(&self.ring)
    }

    pub(super) fn descriptor_of(ring: &IoUring) -> BorrowedFd<'_> {
        // SAFETY: the ring has the descriptor until it is dropped.
        unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
    }

    /// What is needed to make the system call while others use the queues.
    pub(super) fn handle(&self) -> RingHandle {
        RingHandle { ring: self.ring.as_raw_fd(), flags: self.flags }
    }

    /// Cancels the poll under `key` if it is of the file that `fd` stands for now. Returns whether
    /// it was; always true before Linux 6.6, where the kernel doesn't distinguish files here.
    pub(super) fn cancel_if_of(&self, key: u64, fd: RawFd) -> bool {
        const REGISTER_SYNC_CANCEL: libc::c_uint = 24;
        const CANCEL_FD: u32 = 1 << 1;
        const CANCEL_USERDATA: u32 = 1 << 4;
        let cancel = SyncCancel {
            user_data: key,
            fd,
            flags: CANCEL_FD | CANCEL_USERDATA,
            timeout: [-1, -1],
            operation: 0,
            padding: [0; 7],
            more_padding: [0; 3],
        };
        let ring = self.ring.as_raw_fd();
        // SAFETY: the argument lives through the call and is the one this operation takes.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_SYNC_CANCEL, &cancel, 1) };
        result == 0 || errno() != libc::ENOENT
    }
}

impl Ring {
    /// Cancels every request, so that no file is held by a copy of the descriptor that a forked
    /// child has, nor until the kernel takes the ring down.
    pub(super) fn cancel_all(&mut self) {
        let request = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build().user_data(IGNORED);
        if self.push(&request) {
            // Before Linux 5.19 there is no such request; then, as after an error, only the
            // kernel's taking down of the ring releases them.
            let requests = self.unsubmitted();
            let _ = self.handle().enter(requests, 0, None);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if std::process::id() == self.owner {
            self.cancel_all();
            // SAFETY: it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        } else {
            // In a forked child something else may be where the queues were in the parent.
            // SAFETY: the descriptor is this process's copy, and is not used after this.
            unsafe { libc::close(self.ring.as_raw_fd()) };
        }
    }
}

/// The ring's descriptor and how to call it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RingHandle {
    ring: RawFd,
    flags: u32,
}

/// How a call of [`RingHandle::enter`] ended.
pub(super) enum Entered {
    /// There is a completion, or the kernel has taken requests.
    Returned {
        /// How many requests the kernel took.
        submitted: u32,
    },
    TimedOut,
}

impl RingHandle {
    pub(super) fn is(self, fd: RawFd) -> bool {
        self.ring == fd
    }

    /// `io_uring_enter(2)`: submits `requests` and waits for `completions`, one or none.
    ///
    /// When it has taken requests the kernel doesn't say how the wait ended. If neither a
    /// completion nor the time did, a signal may have: the caller must find out. `EAGAIN` is a lack
    /// of memory, `EBUSY` of room for completions: reaping some helps, and time.
    pub(super) fn enter(
        self,
        requests: u32,
        completions: u32,
        timeout: Option<Duration>,
    ) -> io::Result<Entered> {
        let timespec = timeout.map(types::Timespec::from);
        let timeout = timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64);
        let argument = GetEventsArg { mask: 0, mask_size: 0, min_wait: 0, timeout };
        // SAFETY: the argument and the timeout it points to live through the call, which only
        // reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.ring,
                requests,
                completions,
                self.flags,
                &argument,
                size_of::<GetEventsArg>(),
            )
        };
        if result >= 0 {
            return Ok(Entered::Returned { submitted: result as u32 });
        }
        match errno() {
            libc::ETIME => Ok(Entered::TimedOut),
            _ => Err(system("io_uring_enter failed")),
        }
    }
}
