//! The buffers that all receives of a ring share: io_uring_register_buf_ring(3).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{cqueue, IoUring};

use super::completion::Chunk;
use super::mapping::Mapping;

/// How many buffers there are, and the size of each.
const BUFFERS: u16 = 32;
pub(super) const BUFFER: usize = 64 * 1024;
/// The group by which requests name them.
pub(super) const GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC` and `IORING_CQE_F_BUF_MORE` of linux/io_uring.h (Linux 6.12): what is
/// received is put one after another into a buffer, so that few of them, which stay in the cache,
/// serve many connections. Without it each receive takes a buffer.
const INCREMENTAL: u16 = 2;
const BUFFER_HAS_MORE: u32 = 1 << 4;

/// The memory, and the ring in which free buffers are offered to the kernel.
///
/// It is mapped and not allocated: an allocator that has seen so large a piece be freed, as that of the probe
/// is, may keep later ones on its heap, and the tables of a loop would leave holes there as they grow.
pub(super) struct ReceiveBuffers {
    entries: Mapping,
    memory: Mapping,
    tail: u16,
    /// How far each buffer is filled.
    filled: Vec<usize>,
}

impl ReceiveBuffers {
    pub(super) fn new() -> io::Result<Self> {
        let count = usize::from(BUFFERS);
        let entries = Mapping::private(count * size_of::<BufRingEntry>())?;
        let memory = Mapping::private(count * BUFFER)?;
        let mut buffers = Self { entries, memory, tail: 0, filled: vec![0; count] };
        (0..BUFFERS).for_each(|buffer| buffers.offer(buffer));
        Ok(buffers)
    }

    fn entries(&self) -> *mut BufRingEntry {
        self.entries.start().cast().as_ptr()
    }

    /// Registers them with a ring, which must be closed before they are dropped. The result is why they are
    /// not incremental, if they are not.
    pub(super) fn register(&self, ring: &IoUring) -> io::Result<Option<io::Error>> {
        match self.register_with(ring, INCREMENTAL) {
            Ok(()) => Ok(None),
            Err(refused) => self.register_with(ring, 0).map(|()| Some(refused)),
        }
    }

    fn register_with(&self, ring: &IoUring, flags: u16) -> io::Result<()> {
        let entries = self.entries() as u64;
        // SAFETY: there are that many entries, aligned to a page, and freed after the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries, BUFFERS, GROUP, flags) }
    }

    /// Where the kernel has put what it received: behind what it put into that buffer before.
    #[inline]
    pub(super) fn chunk(&mut self, flags: u32, length: usize) -> Chunk {
        let Some(buffer) = cqueue::buffer_select(flags) else {
            return Chunk { buffer: 0, start: 0, length: 0, is_last: false, is_partial: false };
        };
        let filled = &mut self.filled[usize::from(buffer)];
        let start = *filled;
        *filled += length;
        assert!(*filled <= BUFFER);
        let is_last = flags & BUFFER_HAS_MORE == 0;
        // A single-shot receive may end before the end of its buffer: the kernel limits it to the
        // room that there was when it first tried.
        let is_limited = is_last || !cqueue::more(flags);
        let is_partial = cqueue::sock_nonempty(flags) && is_limited && length < BUFFER;
        Chunk { buffer, start, length, is_last, is_partial }
    }

    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        // SAFETY: the chunk is within its buffer, and the kernel does not write there before the
        // buffer is offered again, for which its last chunk has to be recycled.
        unsafe {
            let start = self.memory.start().as_ptr().add(usize::from(chunk.buffer) * BUFFER + chunk.start);
            std::slice::from_raw_parts(start, chunk.length)
        }
    }

    /// Offers the buffer to the kernel again if this was its last chunk.
    #[inline]
    pub(super) fn recycle(&mut self, chunk: &Chunk) {
        if chunk.is_last {
            self.offer(chunk.buffer);
        }
    }

    #[inline]
    fn offer(&mut self, buffer: u16) {
        self.filled[usize::from(buffer)] = 0;
        let index = usize::from(self.tail % BUFFERS);
        // SAFETY: the index is within the entries, and the kernel does not read the entry before the
        // tail has passed it. The tail lies in the first entry's unused part.
        unsafe {
            let entry = &mut *self.entries().add(index);
            entry.set_addr(self.memory.start().as_ptr().add(usize::from(buffer) * BUFFER) as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
