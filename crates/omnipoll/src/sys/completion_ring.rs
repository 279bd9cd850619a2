//! `io_uring(7)` for the streams: a ring that accepts, receives and sends for one loop, instead of
//! telling when it could.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - What the kernel reads from or writes to must stay where it is until the completion, which
//!   may come after everybody has lost interest. So the ring owns it: the buffers it receives
//!   into, and the bytes it sends.
//! - A ring that is closed ends its requests some time later. It is dropped only when it has
//!   none; should that take too long, its memory is left to the kernel.
//! - A lasting receive ends when the buffers have run out (`ENOBUFS`), or when completions
//!   overflow: it is asked for anew.
//! - A receive that is cancelled may have brought something before: it is told like any other. So is
//!   whom a lasting accept has let in before it was.
//! - A lasting accept knows no limit but that of descriptors, as it was when it began, and takes
//!   clients whom a free worker might have served: it is for loops that have their listening sockets,
//!   and as many clients as come, for themselves.
//! - A ring may be used by one thread at a time; only then can the kernel leave its work for the
//!   moment that thread enters it, and interrupt nobody (IORING_SETUP_DEFER_TASKRUN, Linux 6.1).
//!   This ring belongs to the thread that made it.
//! - Its queues are kept from forked children, who could not use them: a child that returns from the
//!   callback that has forked it comes by here, and is refused before it touches them.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode, squeue, IoUring};
use slab::Slab;

use super::fork;
use super::{above_stdio, descriptor, socket, Address};
use crate::errno::{self, ErrorClass};
use crate::error::{bare, fail, system, Describe, Error};

/// Requests that are handed over in one system call at most.
const REQUESTS: u32 = 1024;
/// Completions there is room for; the kernel keeps those beyond.
const COMPLETIONS: u32 = 4096;
/// The buffers that receives share, and the size of each.
const BUFFERS: u16 = 32;
const BUFFER: usize = 64 * 1024;
const GROUP: u16 = 0;
/// `IOU_PBUF_RING_INC` and `IORING_CQE_F_BUF_MORE` of linux/io_uring.h (Linux 6.12): what is
/// received is put one after another into a buffer, so that few of them, which are warm, serve
/// many connections. Without it each receive takes a buffer.
const INCREMENTAL: u16 = 2;
const BUFFER_GOES_ON: u32 = 1 << 4;

/// What a request was, in the upper byte of its key. The rest says whose it was.
const RECEIVE: u64 = 1 << 56;
const SEND: u64 = 2 << 56;
const WATCH: u64 = 3 << 56;
const CANCEL: u64 = 4 << 56;
const ACCEPT: u64 = 5 << 56;
const KIND: u64 = 0xff << 56;

/// What has come to an end, or, if `more`, has brought something.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A client has come in at this door, with a socket that is non-blocking and closed by `exec`;
    /// or why none does.
    Accepted { key: usize, result: io::Result<(OwnedFd, Address)>, more: bool },
    /// Bytes have arrived, or an end or an error.
    Received { key: usize, result: io::Result<Chunk>, more: bool },
    /// Bytes have been sent, up to the `sent`th: not all if something has come between.
    Sent { key: usize, result: io::Result<usize>, bytes: Vec<u8>, sent: usize },
    /// The descriptor that is watched besides is readable. It is watched no more.
    Readable,
}

/// Received bytes, in one of the ring's buffers; to be [given back](Completion::give_back).
/// None are the end of the stream, which takes no buffer.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: u16,
    start: usize,
    length: usize,
    /// It is the last in its buffer.
    is_last: bool,
    is_partial: bool,
}

/// What is being sent, from where on, and for whom.
struct InFlightSend {
    key: usize,
    bytes: Vec<u8>,
    start: usize,
}

impl Chunk {
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether more had arrived, which is missing only because the buffer was full or the receive had
    /// brought all that it may: a read into a buffer of its own would have brought it too.
    #[inline]
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }
}

pub(crate) struct CompletionRing {
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    sends: ManuallyDrop<Slab<InFlightSend>>,
    /// Requests that have not ended.
    in_flight: usize,
    /// Whether the kernel ends a lasting receive that has brought enough; else each is for once.
    is_capped: bool,
    /// The process that made it, as [`fork::epoch`] numbers it.
    owner: u32,
}

impl CompletionRing {
    /// Whether the kernel has all of it, and permits it: Linux 6.1. Found out once, by using it; an
    /// error when the system is too short of something to find out.
    pub(crate) fn is_available() -> io::Result<bool> {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        if let Some(&is_available) = AVAILABLE.get() {
            return Ok(is_available);
        }
        // In a thread of its own: when the ring is gone, the kernel interrupts who made it.
        let probe = thread::Builder::new().spawn(|| Self::probe().map_err(Error::from));
        let panicked = |_| Err(bare(libc::ENOTRECOVERABLE).into());
        let made = probe.describe("pthread_create")?.join().unwrap_or_else(panicked).map_err(io::Error::from);
        match made {
            Err(error) if errno::classify_making(&error) != ErrorClass::Permanent => Err(error),
            made => Ok(*AVAILABLE.get_or_init(|| made.is_ok())),
        }
    }

    /// `EINVAL` when the kernel is too old, `ENOSYS` or `EPERM` when it does not let us, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS).setup_single_issuer().setup_defer_taskrun();
        let ring = descriptor::make_above_stdio(|| builder.build(REQUESTS))?;
        let buffers = Buffers::new()?;
        buffers.register(&ring, INCREMENTAL).or_else(|_| buffers.register(&ring, 0))?;
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            sends: ManuallyDrop::default(),
            in_flight: 0,
            is_capped: CAPPED.get().is_some_and(|&is_capped| is_capped),
            owner: fork::epoch(),
        })
    }

    /// Makes one, and finds out what it can do.
    fn probe() -> io::Result<()> {
        let _ = CAPPED.set(Self::new()?.takes_a_cap()?);
        Ok(())
    }

    /// Whether a lasting receive may have a cap (Linux 6.17); it is `EINVAL` before.
    fn takes_a_cap(&mut self) -> io::Result<bool> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"x")?;
        self.is_capped = true;
        self.receive(ours.as_fd(), 0)?;
        for _ in 0..TRIES {
            match self.wait(None) {
                // A signal is no answer.
                Err(error) if errno::classify_wait(&error) == ErrorClass::WouldBlock => continue,
                waited => drop(waited?),
            }
            if let Some(Completion::Received { result, .. }) = self.next() {
                return Ok(result.map(|chunk| self.recycle(chunk)).is_ok());
            }
        }
        Err(bare(libc::EINTR))
    }

    /// Accepts whoever comes, until it is told otherwise or fails.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let request = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build();
        self.push(request.user_data(ACCEPT | key as u64))
    }

    /// Ends a lasting accept. It is told when it has ended.
    pub(crate) fn cancel_accept(&mut self, key: usize) -> io::Result<()> {
        self.cancel(ACCEPT | key as u64)
    }

    /// Receives what arrives, until it is told otherwise or has brought as much as one read of other
    /// engines would: a loop can end a receive only by the next system call, and one without bound
    /// would by then have taken up to 2 MiB from the client of a connection that has been paused.
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

    /// Ends a lasting receive. It is told when it has ended.
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
        let send = self.sends.insert(InFlightSend { key, bytes, start });
        self.push(request.user_data(SEND | send as u64))
    }

    /// Ends a send that is under way.
    pub(crate) fn cancel_send(&mut self, key: usize) -> io::Result<()> {
        let send = self.sends.iter().find(|(_, send)| send.key == key).map(|(key, _)| key);
        match send {
            Some(send) => self.cancel(SEND | send as u64),
            None => Ok(()),
        }
    }

    /// Watches one descriptor besides, once.
    pub(crate) fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build().user_data(WATCH))
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
                // What the kernel is short of, it may have in a moment. A signal is none of ours.
                Err(error) if tries < TRIES && errno::classify_wait(&error) != ErrorClass::Permanent => {
                    tries += 1;
                    thread::sleep(SHORTAGE);
                }
                submitted => drop(submitted?),
            }
        }
        // SAFETY: what a request refers to is owned by `self`: the buffers and the parcels, which
        // live until the request has ended. Its descriptor is a number.
        let pushed = unsafe { self.ring.submission().push(&request) };
        pushed.map_err(|_| fail(libc::EBUSY, "the ring takes no more requests"))?;
        self.in_flight += 1;
        Ok(())
    }

    /// Hands over the requests and waits until something is done, for no longer than `limit`.
    /// Returns false when time was up. One system call.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        self.check_owner()?;
        if !self.ring.completion().is_empty() && self.ring.submission().is_empty() {
            return Ok(true);
        }
        // One completion is asked for even by a look: a ring of this kind does its work only for
        // those who ask, and a loop that never sleeps would starve it.
        let waited = match limit {
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
            None => self.ring.submit_and_wait(1),
        };
        match waited {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(false),
            // The kernel has no room for more completions until those that are there are taken.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What is done, one thing after another.
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
                        let peer = socket::peer(socket.as_fd());
                        Ok((socket, peer))
                    });
                    return Some(Completion::Accepted { key, result, more });
                }
                WATCH => return Some(Completion::Readable),
                _ => {}
            }
        }
    }

    /// The bytes of a chunk.
    #[inline]
    pub(crate) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    /// Lets the kernel receive into its buffer again.
    #[inline]
    pub(crate) fn recycle(&mut self, chunk: Chunk) {
        if chunk.is_last {
            self.buffers.offer(chunk.buffer);
        }
    }
}

impl Drop for CompletionRing {
    fn drop(&mut self) {
        if !self.is_owner() {
            // The mapping of the queues is not there; the process is about to end.
            return;
        }
        if self.in_flight > 0 {
            let everything = io_uring::types::CancelBuilder::any();
            let _ = self.ring.submit();
            let _ = self.ring.submitter().register_sync_cancel(None, everything);
            // A wait without time only submits: the kernel tells the ends to who waits for one.
            while self.in_flight > 0 && self.wait(Some(GRACE)).unwrap_or(false) {
                while self.next().is_some() {}
            }
        }
        // The sockets of clients that nobody has heard of are closed.
        while self.next().is_some() {}
        if self.in_flight > 0 {
            // The memory is rather lost than written to when it is somebody else's.
            // SAFETY: the descriptor is the ring's, which nobody uses after this.
            unsafe { libc::close(self.ring.as_raw_fd()) };
            return;
        }
        // SAFETY: none of them is used after this, and the kernel uses the memory no more.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.sends);
        }
    }
}

impl std::fmt::Debug for CompletionRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletionRing").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// Whether lasting receives have a cap, once it is known.
static CAPPED: OnceLock<bool> = OnceLock::new();

/// A lasting receive that ends when it has brought a buffer's worth.
fn capped(mut request: squeue::Entry) -> squeue::Entry {
    /// `optlen` of `struct io_uring_sqe` in linux/io_uring.h, all that a receive may bring.
    const OPTLEN: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let all = (BUFFER as u32).to_ne_bytes();
    // SAFETY: an entry is a `struct io_uring_sqe`, as it says, in which any bytes are valid.
    unsafe {
        std::ptr::from_mut(&mut request).cast::<u8>().add(OPTLEN).cast::<[u8; 4]>().write(all);
    }
    request
}

/// How long to let the system find what it needs to take requests.
const SHORTAGE: Duration = Duration::from_millis(1);
/// How often to try it while there is no room for another request, or signals come between.
const TRIES: u32 = 100;
/// How long to wait for the end of a request that was cancelled.
const GRACE: Duration = Duration::from_millis(100);

/// The memory that receives share, and the ring in which its parts are offered to the kernel.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    /// How far each buffer is filled.
    filled: Vec<usize>,
}

impl Buffers {
    const ENTRIES: Layout = match Layout::from_size_align(BUFFERS as usize * size_of::<BufRingEntry>(), 4096)
    {
        Ok(layout) => layout,
        Err(_) => panic!("the size is a constant"),
    };
    const MEMORY: Layout = match Layout::from_size_align(BUFFERS as usize * BUFFER, 4096) {
        Ok(layout) => layout,
        Err(_) => panic!("the size is a constant"),
    };

    fn new() -> io::Result<Self> {
        // SAFETY: neither layout is empty.
        let (entries, memory) = unsafe { (alloc_zeroed(Self::ENTRIES), alloc_zeroed(Self::MEMORY)) };
        let (Some(entries), Some(memory)) = (NonNull::new(entries.cast()), NonNull::new(memory)) else {
            return Err(system("no memory for the ring's buffers"));
        };
        let mut buffers = Self { entries, memory, tail: 0, filled: vec![0; BUFFERS.into()] };
        (0..BUFFERS).for_each(|buffer| buffers.offer(buffer));
        Ok(buffers)
    }

    fn register(&self, ring: &IoUring, flags: u16) -> io::Result<()> {
        let entries = self.entries.as_ptr() as u64;
        // SAFETY: the entries are of this number, aligned to a page, and freed after the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries, BUFFERS, GROUP, flags) }
    }

    /// Where the kernel has put what it received: behind what it put into that buffer before.
    #[inline]
    fn chunk(&mut self, flags: u32, length: usize) -> Chunk {
        let Some(buffer) = cqueue::buffer_select(flags) else {
            return Chunk { buffer: 0, start: 0, length: 0, is_last: false, is_partial: false };
        };
        let filled = &mut self.filled[usize::from(buffer)];
        let start = *filled;
        *filled += length;
        assert!(*filled <= BUFFER);
        let is_last = flags & BUFFER_GOES_ON == 0;
        // A receive that is for once may be cut before the end of its buffer: the kernel bounds it by
        // the room that there was when it first tried.
        let has_bound = is_last || !cqueue::more(flags);
        let is_partial = cqueue::sock_nonempty(flags) && has_bound && length < BUFFER;
        Chunk { buffer, start, length, is_last, is_partial }
    }

    #[inline]
    fn offer(&mut self, buffer: u16) {
        self.filled[usize::from(buffer)] = 0;
        let place = usize::from(self.tail % BUFFERS);
        // SAFETY: the place is within the entries, and the kernel does not read it before the
        // tail has passed it. The tail lies in the first entry's unused part.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(buffer) * BUFFER) as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    #[inline]
    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        // SAFETY: the chunk is within its buffer, and the kernel does not write there before the
        // buffer is offered again, for which its last chunk has to be given back.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(chunk.buffer) * BUFFER + chunk.start);
            std::slice::from_raw_parts(start, chunk.length)
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::ENTRIES);
            dealloc(self.memory.as_ptr(), Self::MEMORY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "it has no io_uring")]
    fn a_receive_is_bounded_with_and_without_caps() {
        if !CompletionRing::is_available().unwrap() {
            return;
        }
        let mut ring = CompletionRing::new().unwrap();
        for is_capped in [false, ring.is_capped] {
            ring.is_capped = is_capped;
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&[7; 160 * 1024]).unwrap();
            ring.receive(ours.as_fd(), 3).unwrap();
            let mut more = true;
            let mut total = 0;
            while more && ring.wait(None).unwrap() {
                while let Some(done) = ring.next() {
                    let Completion::Received { key: 3, result: Ok(chunk), more: again } = done else {
                        panic!("{done:?}")
                    };
                    total += chunk.length();
                    ring.recycle(chunk);
                    more = again;
                }
            }
            assert_eq!(total, BUFFER, "capped: {is_capped}");
        }
    }
}
