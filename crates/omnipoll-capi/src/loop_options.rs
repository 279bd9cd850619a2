//! `omni_loop_options`: the core's options under their C names.

use std::ffi::c_char;
use std::mem::offset_of;

use omnipoll::LoopOptions;

use crate::engine::engine_kind;
use crate::error::Failure;
use crate::option_values::{count, list, some_time, some_u32, with};
use crate::poller::OMNI_INTERRUPTIBLE;
use crate::sized::Sized32;
use crate::wait_policy::wait_policy;

/// What holds for a loop and its connections. 0 is the default in every field: fill the struct with
/// zeros, set `size`, and then what is to differ. Fields that omni_server_options has too mean the
/// same.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_loop_options {
    /// sizeof(omni_loop_options).
    pub size: u32,
    /// OMNI_ENGINE_AUTO and so on.
    pub engine: u32,
    /// 0, or OMNI_INTERRUPTIBLE: a signal whose handler has run ends `omni_loop_wait`,
    /// `omni_loop_run` and `omni_loop_run_once` with -EINTR, and the loop can go on after it.
    pub flags: u32,
    /// How many accepted connections there may be at once; clients beyond wait in the listening
    /// socket's queue. 0: no limit. Connections out don't count.
    pub max_clients: u32,
    /// How many clients may wait to be accepted. 0: 4,096.
    pub backlog: u32,
    /// OMNI_WAIT_BALANCED (as is 0), OMNI_WAIT_LATENCY or OMNI_WAIT_THRIFTY.
    pub wait_policy: u32,
    /// How many bytes may wait to be sent on one connection. 0: 16 MiB.
    pub queue_limit: u64,
    /// How many bytes may wait to be sent on all connections of the loop. 0: 256 MiB.
    pub total_queue_limit: u64,
    /// While more bytes than this wait to be sent on a connection that was accepted, nothing is read from
    /// it. One that was connected goes on reading: its peer may be a server that does the same. 0: 64 KiB.
    pub high_water: u64,
    /// When no more than this wait, it is read again. 0: 16 KiB. Not more than `high_water`.
    pub low_water: u64,
    /// Ends a connection on which nothing was read or written for so many nanoseconds. 0: none.
    pub idle_timeout_ns: i64,
    /// The same when nothing arrived for so long while the connection was being read. 0: none.
    pub read_timeout_ns: i64,
    /// The same when bytes waited to be sent and none could be for so long. 0: one minute; negative:
    /// none.
    pub write_timeout_ns: i64,
    /// How long a closed connection waits for its peer to read what was sent. 0: two seconds;
    /// negative: no time.
    pub linger_ns: i64,
    /// The time of the wait policy, in nanoseconds: above 0 with one, and 0 without.
    pub wait_ns: i64,
    /// Within which time each client must begin with a header of the PROXY protocol; not above 0: none is
    /// expected.
    pub proxy_header_ns: i64,
    /// How many connections each address may have at once. 0: no limit.
    pub max_address_clients: u32,
    /// How many new connections a second each address may make. 0: no limit.
    pub max_address_rate: u32,
    /// From which networks clients are accepted; NULL or empty: from all. The text is copied.
    pub allow: *const c_char,
    /// From which networks none are accepted, even if they are allowed.
    pub deny: *const c_char,
    /// How many bytes a second are read from each client. 0: no limit.
    pub max_receive_rate: u64,
}

// SAFETY: as declared above; each zero is a number's.
unsafe impl Sized32 for omni_loop_options {
    const MIN_SIZE: usize = offset_of!(Self, linger_ns) + size_of::<i64>();
    const UNSET: &'static str = "the size of the options is not set";
}

impl omni_loop_options {
    /// As the core takes them.
    pub(crate) fn translate(&self) -> Result<LoopOptions, Failure> {
        if self.flags & !OMNI_INTERRUPTIBLE != 0 {
            return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
        }
        let options = LoopOptions::new().interruptible(self.is_interruptible()).water_marks(
            count(self.low_water).unwrap_or(16 << 10),
            count(self.high_water).unwrap_or(64 << 10),
        );
        let options = options.wait_policy(wait_policy(self.wait_policy, self.wait_ns)?);
        let options = with(options, engine_kind(self.engine)?, LoopOptions::engine);
        let options = with(options, count(self.max_clients.into()), LoopOptions::max_clients);
        let backlog = count(self.backlog.into()).map(|clients| clients.try_into().unwrap_or(i32::MAX));
        let options = with(options, backlog, LoopOptions::backlog);
        let options = with(options, count(self.queue_limit), LoopOptions::queue_limit);
        let options = with(options, count(self.total_queue_limit), LoopOptions::total_queue_limit);
        let options = with(options, some_time(self.idle_timeout_ns), LoopOptions::idle_timeout);
        let options = with(options, some_time(self.read_timeout_ns), LoopOptions::read_timeout);
        let options = with(options, some_time(self.proxy_header_ns), LoopOptions::proxy_header);
        let options = with(options, some_u32(self.max_address_clients), LoopOptions::max_address_clients);
        let options = with(options, some_u32(self.max_address_rate), LoopOptions::max_address_rate);
        // SAFETY: NULL or texts by the contract of this struct.
        let (allow, deny) = unsafe { (list(self.allow)?, list(self.deny)?) };
        let options = options.allow(allow).deny(deny).max_receive_rate(self.max_receive_rate);
        let write_timeout = (self.write_timeout_ns != 0).then(|| some_time(self.write_timeout_ns));
        let options = with(options, write_timeout, LoopOptions::write_timeout);
        let linger = (self.linger_ns != 0).then(|| some_time(self.linger_ns).unwrap_or_default());
        Ok(with(options, linger, LoopOptions::linger))
    }

    pub(crate) fn is_interruptible(&self) -> bool {
        self.flags & OMNI_INTERRUPTIBLE != 0
    }
}
