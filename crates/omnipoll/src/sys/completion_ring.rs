//! `io_uring(7)` for connections: a ring that accepts, connects, receives and sends for one loop, where other
//! engines report that the loop could.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - The memory that the kernel reads from or writes to must stay in place until the completion, which
//!   may come after the connection has ended. So the ring owns it: the buffers it receives into,
//!   the bytes it sends, and the addresses it connects to.
//! - The requests of a ring that is closed end some time later. It is dropped only when it has none;
//!   should that take too long, its memory is leaked.
//! - A multishot receive ends when the buffers have run out (`ENOBUFS`), or when completions
//!   overflow: it is submitted again.
//! - A receive that is cancelled may have brought something before, which is delivered like any other.
//!   So are the connections that a multishot accept has accepted before it was cancelled.
//! - A multishot accept has no limit but that of descriptors, as it was when it began, and takes
//!   connections that an idle worker might have served: it is for loops that share their listening
//!   sockets with no other, and whose connections are not limited in number.
//! - A ring may be used by one thread at a time; only then can the kernel leave its work for the
//!   moment that thread enters it, and interrupt no thread (IORING_SETUP_DEFER_TASKRUN, Linux 6.1).
//!   This ring belongs to the thread that made it.
//! - For such a ring poll(2) finds no completion that the kernel has left for that moment. An eventfd that
//!   is registered with the ring is written to for it.
//! - Its queues are not inherited by forked children, which could not use them. A child that returns
//!   from the callback that has forked it comes by here: it gets an error before it touches them.

mod probe;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode, squeue, IoUring};
use slab::Slab;

use super::completion::{Chunk, Completion};
use super::receive_buffers::{ReceiveBuffers, BUFFER, GROUP};
use super::sockaddr::SocketAddress;
use super::{above_stdio, busy_poll, descriptor, fork, poll, socket, Address};
use crate::errno::{self, ErrorClass};
use crate::error::{bare, fail, Describe};

/// Requests that one system call submits at most.
const REQUESTS: u32 = 1024;
/// Completions there is room for; the kernel keeps those beyond.
const COMPLETIONS: u32 = 4096;
/// What a request does, in the upper byte of its user data. The rest is the caller's key.
const RECEIVE: u64 = 1 << 56;
const SEND: u64 = 2 << 56;
const WATCH: u64 = 3 << 56;
const CANCEL: u64 = 4 << 56;
const ACCEPT: u64 = 5 << 56;
const CONNECT: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

/// How long to let the system find what it needs to take requests.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(1);
/// How often to try while there is no room for another request, or signals interrupt.
const TRIES: u32 = 100;
/// How long to wait for the end of a request that was cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(100);

/// What is being sent, from where on, and the key of its connection.
struct InFlightSend {
    key: usize,
    bytes: Vec<u8>,
    start: usize,
}

pub(crate) struct CompletionRing {
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<ReceiveBuffers>,
    sends: ManuallyDrop<Slab<InFlightSend>>,
    /// The addresses of sockets that are being connected.
    addresses: ManuallyDrop<HashMap<usize, Box<SocketAddress>>>,
    /// Requests that have not ended.
    in_flight: usize,
    /// Whether the kernel ends a multishot receive that has brought enough; else each is single-shot.
    is_capped: bool,
    /// Why its buffers are not incremental, or 0.
    not_incremental: i32,
    /// For how long the next wait gathers completions.
    gathering: Duration,
    /// A descriptor is watched.
    is_watching: bool,
    /// The eventfd that the kernel writes to at completions, for an outer loop.
    announcer: OnceCell<OwnedFd>,
    /// The process that made it, as [`fork::epoch`] numbers it.
    owner: u32,
}

impl CompletionRing {
    /// `EINVAL` when the kernel is too old, `ENOSYS` or `EPERM` when it is not permitted, `ENOMEM`.
    ///
    /// With `busy_poll` the kernel looks at network devices for so long before a wait sleeps, if it can.
    pub(crate) fn new(busy_poll: Option<Duration>) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS).setup_single_issuer().setup_defer_taskrun();
        let ring = descriptor::make_above_stdio(|| builder.build(REQUESTS))?;
        let buffers = ReceiveBuffers::new()?;
        let not_incremental = probe::errno_of(buffers.register(&ring)?.map_or(Ok(()), Err));
        // SAFETY: the ring has the descriptor until it is dropped.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        busy_poll.map(|time| busy_poll::of_ring(descriptor, time));
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            sends: ManuallyDrop::default(),
            addresses: ManuallyDrop::default(),
            in_flight: 0,
            is_capped: probe::can_be_capped(),
            not_incremental,
            gathering: Duration::ZERO,
            is_watching: false,
            announcer: OnceCell::new(),
            owner: fork::epoch(),
        })
    }

    /// Accepts connections, until it is cancelled or fails.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let request = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build();
        self.push(request.user_data(ACCEPT | key as u64))
    }

    /// Cancels an accept. A last completion says that it has ended.
    pub(crate) fn cancel_accept(&mut self, key: usize) -> io::Result<()> {
        self.cancel(ACCEPT | key as u64)
    }

    /// Connects a socket. It stays open, and no other has its key, until the completion.
    pub(crate) fn connect(&mut self, fd: BorrowedFd<'_>, key: usize, address: &Address) -> io::Result<()> {
        let mut peer = Box::new(SocketAddress::new());
        peer.set(address)?;
        let request = opcode::Connect::new(Fd(fd.as_raw_fd()), peer.as_mut_ptr(), peer.length).build();
        self.push(request.user_data(CONNECT | key as u64))?;
        self.addresses.insert(key, peer);
        Ok(())
    }

    /// Cancels that. Its completion says how it has ended.
    pub(crate) fn cancel_connect(&mut self, key: usize) -> io::Result<()> {
        self.cancel(CONNECT | key as u64)
    }

    /// Receives what arrives, until it is cancelled or has brought as much as one read of other engines
    /// would: a loop can end a receive only by the next system call, and one without limit would by
    /// then have taken up to 2 MiB from the peer of a connection that has been paused.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        let fd = Fd(fd.as_raw_fd());
        let request = if self.is_capped {
            capped(opcode::RecvMulti::new(fd, GROUP).build())
        } else {
            let once = opcode::Recv::new(fd, std::ptr::null_mut(), BUFFER as u32).buf_group(GROUP);
            once.build().flags(squeue::Flags::BUFFER_SELECT)
        };
        self.push(request.user_data(RECEIVE | key as u64))
    }

    /// Cancels a receive. A last completion says that it has ended.
    pub(crate) fn cancel_receive(&mut self, key: usize) -> io::Result<()> {
        self.cancel(RECEIVE | key as u64)
    }

    /// Sends all of these bytes, from `start` on. One send at a time for each connection.
    pub(crate) fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        key: usize,
        bytes: Vec<u8>,
        start: usize,
    ) -> io::Result<()> {
        let rest = &bytes[start..];
        let request = opcode::Send::new(Fd(fd.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        let index = self.sends.insert(InFlightSend { key, bytes, start });
        self.push(request.user_data(SEND | index as u64))
    }

    /// Cancels the send of a connection, if one is in flight.
    pub(crate) fn cancel_send(&mut self, key: usize) -> io::Result<()> {
        let found = self.sends.iter().find(|(_, send)| send.key == key);
        match found.map(|(index, _)| index) {
            Some(index) => self.cancel(SEND | index as u64),
            None => Ok(()),
        }
    }

    /// Completes the next wait also when a descriptor is readable, once: poll(2).
    pub(crate) fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build().user_data(WATCH))?;
        self.is_watching = true;
        Ok(())
    }

    /// Whether a descriptor is watched: not since it was readable.
    #[inline]
    pub(crate) fn is_watching(&self) -> bool {
        self.is_watching
    }

    fn cancel(&mut self, key: u64) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new(key).build().user_data(CANCEL))
    }

    #[inline]
    fn is_owner(&self) -> bool {
        self.owner == fork::epoch()
    }

    fn check_owner(&self) -> io::Result<()> {
        if self.is_owner() {
            Ok(())
        } else {
            Err(fail(libc::EOWNERDEAD, "the loop belongs to the parent process"))
        }
    }

    fn push(&mut self, request: squeue::Entry) -> io::Result<()> {
        self.check_owner()?;
        let mut tries = 0;
        while self.ring.submission().is_full() {
            match self.ring.submit() {
                // What the kernel is short of, it may have in a moment. A signal does not concern the ring.
                Err(error) if tries < TRIES && errno::classify_wait(&error) != ErrorClass::Permanent => {
                    tries += 1;
                    thread::sleep(SHORTAGE_PAUSE);
                }
                submitted => drop(submitted?),
            }
        }
        // SAFETY: what a request refers to is owned by `self`: the buffers, the parcels and the
        // addresses, which live until the request has ended. Its descriptor is a number.
        let pushed = unsafe { self.ring.submission().push(&request) };
        pushed.map_err(|_| fail(libc::EBUSY, "the ring takes no more requests"))?;
        self.in_flight += 1;
        Ok(())
    }

    /// Submits the requests and waits for a completion, for no longer than `limit`. False when the
    /// time was up. One system call.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        self.check_owner()?;
        let gathers = !self.gathering.is_zero();
        if !gathers && !self.ring.completion().is_empty() && self.ring.submission().is_empty() {
            return Ok(true);
        }
        let began = (limit.is_some() && !self.ring.submission().is_empty()).then(Instant::now);
        // One completion is asked for even without time to wait: a ring of this kind does its work only
        // when asked for some, and a loop that never sleeps would starve it.
        let waited = match limit {
            _ if gathers => self.enter_and_gather(limit),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
            None => self.ring.submit_and_wait(1),
        };
        match waited {
            // With requests to submit it says how many, and not what else has ended the wait. If that was a
            // signal whose handler has forked, and this is the child, it has no queues to look at.
            Ok(_) if self.is_owner() && self.ring.completion().is_empty() => match (limit, began) {
                (Some(limit), Some(began)) if began.elapsed() >= limit => Ok(false),
                _ => Err(bare(libc::EINTR)),
            },
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(false),
            // The kernel has no room for more completions until those that are there are taken.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Has the next wait take at least so long, unless its limit or a signal ends it, or many requests have
    /// completed.
    pub(crate) fn gather(&mut self, time: Duration) {
        self.gathering = time;
    }

    /// The system call of a wait that gathers.
    #[cold]
    fn enter_and_gather(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        let time = std::mem::take(&mut self.gathering);
        let limit = limit.map(|limit| limit.max(time));
        if self.has_min_wait() {
            let limit = limit.map(Timespec::from);
            let min_wait = time.as_nanos().div_ceil(1_000).try_into().unwrap_or(u32::MAX);
            let args = SubmitArgs::new().min_wait_usec(min_wait);
            let submitter = self.ring.submitter();
            return match &limit {
                Some(limit) => submitter.submit_with_args(REQUESTS as usize, &args.timespec(limit)),
                None => submitter.submit_with_args(REQUESTS as usize, &args),
            };
        }
        // Before Linux 6.12: a pause once the requests are submitted.
        self.ring.submit()?;
        poll::poll(&mut [], Some(time))?;
        match limit.map(|limit| Timespec::from(limit - time)) {
            Some(left) => self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&left)),
            None => self.ring.submit_and_wait(1),
        }
    }

    /// The next completion.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Completion> {
        if !self.is_owner() {
            return None;
        }
        loop {
            let entry = self.ring.completion().next()?;
            let (user_data, more) = (entry.user_data(), cqueue::more(entry.flags()));
            if !more {
                self.in_flight -= 1;
            }
            let result = match entry.result() {
                error if error < 0 => Err(bare(-error)),
                count => Ok(count as usize),
            };
            let key = (user_data & !KIND) as usize;
            match user_data & KIND {
                RECEIVE => {
                    let result = result.map(|length| self.buffers.chunk(entry.flags(), length));
                    return Some(Completion::Received { key, result, more });
                }
                SEND => {
                    let InFlightSend { key, bytes, start } = self.sends.remove(key);
                    let sent = start + result.as_ref().map_or(0, |&count| count);
                    return Some(Completion::Sent { key, result, bytes, sent });
                }
                ACCEPT => {
                    let result = result.and_then(|fd| {
                        // SAFETY: the kernel has just given us this number.
                        let socket = above_stdio(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })?;
                        let peer = socket::peer_address(socket.as_fd());
                        Ok((socket, peer))
                    });
                    return Some(Completion::Accepted { key, result, more });
                }
                CONNECT => {
                    self.addresses.remove(&key);
                    return Some(Completion::Connected { key, result: result.map(drop) });
                }
                WATCH => self.is_watching = false,
                _ => {}
            }
        }
    }

    /// The bytes of a chunk.
    #[inline]
    pub(crate) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    /// Lets the kernel receive into its buffer again, once all its chunks are recycled.
    #[inline]
    pub(crate) fn recycle(&mut self, chunk: Chunk) {
        self.buffers.recycle(&chunk);
    }
}

/// In an outer loop.
impl CompletionRing {
    /// A descriptor that is readable when something has completed since [`arm`](Self::arm): that of the
    /// ring is so too late, when the kernel has done the work that it leaves to this thread.
    pub(crate) fn embed(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(announcer) = self.announcer.get() {
            return Ok(announcer.as_fd());
        }
        let announcer = descriptor::eventfd(0)?;
        self.ring.submitter().register_eventfd(announcer.as_raw_fd()).describe("io_uring_register")?;
        Ok(self.announcer.get_or_init(|| announcer).as_fd())
    }

    /// Before the outer loop sleeps: submits the requests. True when something has completed already, for
    /// which the descriptor may not be readable.
    pub(crate) fn arm(&mut self) -> io::Result<bool> {
        if let Some(announcer) = self.announcer.get() {
            descriptor::drain_eventfd(announcer);
        }
        // What it was readable for is done by this wait, whose completions make it readable again.
        match self.wait(Some(Duration::ZERO)) {
            Ok(_) => Ok(!self.ring.completion().is_empty()),
            Err(error) if errno::classify_wait(&error) == ErrorClass::Permanent => Err(error),
            Err(_) => Ok(true),
        }
    }
}

impl Drop for CompletionRing {
    fn drop(&mut self) {
        if !self.is_owner() {
            // The queues are not mapped here; the process is about to end.
            return;
        }
        if self.in_flight > 0 {
            let everything = io_uring::types::CancelBuilder::any();
            let _ = self.ring.submit();
            let _ = self.ring.submitter().register_sync_cancel(None, everything);
            // A wait without time only submits: completions are there for a wait that asks for one.
            while self.in_flight > 0 && self.wait(Some(CANCEL_TIMEOUT)).unwrap_or(false) {
                while self.next().is_some() {}
            }
        }
        // Closes the sockets that were accepted and are not served.
        while self.next().is_some() {}
        if self.in_flight > 0 {
            // Leaked memory is better than memory that the kernel writes to when others use it.
            // SAFETY: the descriptor is the ring's, which is not used after this.
            unsafe { libc::close(self.ring.as_raw_fd()) };
            return;
        }
        // SAFETY: none of them is used after this, and the kernel does not use the memory any more.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.sends);
            ManuallyDrop::drop(&mut self.addresses);
        }
    }
}

impl std::fmt::Debug for CompletionRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletionRing").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// Lets a multishot receive end when it has brought a buffer's worth.
fn capped(mut request: squeue::Entry) -> squeue::Entry {
    /// `optlen` of `struct io_uring_sqe` in linux/io_uring.h, all that a receive may bring.
    const OPTLEN: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let all = (BUFFER as u32).to_ne_bytes();
    // SAFETY: an entry is a `struct io_uring_sqe`, as its type says, in which any bytes are valid.
    unsafe {
        std::ptr::from_mut(&mut request).cast::<u8>().add(OPTLEN).cast::<[u8; 4]>().write(all);
    }
    request
}
