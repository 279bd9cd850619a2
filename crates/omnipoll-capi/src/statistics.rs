//! What a server has counted.

use std::ffi::{c_char, c_int};
use std::mem::offset_of;

use omnipoll::WorkerStats;

use crate::buffer::{to_count, write_str};
use crate::error::Failure;
use crate::server::call;
use crate::sized::{self, Sized32};
use crate::types::omni_server;

/// What a worker of a server, or the whole server, has counted since it was made.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_server_statistics {
    /// Set it to sizeof(omni_server_statistics) before the call. After it: how much of the struct
    /// is filled in, which is less when the library is older than the header.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Clients that were accepted.
    pub accepted: u64,
    /// Clients that are being served.
    pub active: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes that the kernel accepted for clients.
    pub bytes_out: u64,
    /// Clients that were refused: by `on_open`, for lack of a thread or process, or for one of the reasons
    /// that are counted by themselves.
    pub refused: u64,
    /// Connections that were ended by a timeout.
    pub timed_out: u64,
    /// How often accepting paused for lack of descriptors or memory.
    pub accept_pauses: u64,
    /// How often `omni_server_broadcast` skipped a client that had no room for it.
    pub writes_refused: u64,
    /// Datagrams that arrived.
    pub datagrams_in: u64,
    /// Datagrams that the kernel accepted.
    pub datagrams_out: u64,
    /// Datagrams that could not be sent.
    pub datagrams_dropped: u64,
    /// How often a worker process died and was replaced.
    pub restarts: u64,
    /// Of those refused: for lack of a header of the PROXY protocol.
    pub refused_header: u64,
    /// Of those refused: whose address is not allowed.
    pub refused_filter: u64,
    /// Of those refused: because their address had too many connections.
    pub refused_address: u64,
    /// Of those refused: because their address made too many in a second.
    pub refused_rate: u64,
}

// SAFETY: as declared above; each zero is a number's.
unsafe impl Sized32 for omni_server_statistics {
    const MIN_SIZE: usize = offset_of!(Self, restarts) + size_of::<u64>();
    const UNSET: &'static str = "out->size is not set";
}

/// cbindgen:postfix=OMNI_NONNULL(1,3)
/// Stores in `*out` what worker number `worker` has counted, from 0 on; UINT32_MAX is all of them
/// together. Under OMNI_MODEL_FORK and OMNI_MODEL_PREFORK that is what all the processes have. The
/// numbers may be of slightly different moments.
///
/// Returns 0, or:
///   -EINVAL: `out->size` is no version's.
///   -ENOENT: there is no worker of that number.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_stats(
    server: *const omni_server,
    worker: u32,
    out: *mut omni_server_statistics,
) -> c_int {
    call("omni_server_stats", server, |server| {
        if out.is_null() {
            return Err(Failure::new(libc::EINVAL, "out is NULL"));
        }
        let stats = server.handle.stats();
        let counted = match worker {
            u32::MAX => Some(&stats.total),
            number => stats.workers.get(number as usize),
        };
        let counted = counted.ok_or(Failure::new(libc::ENOENT, "there is no worker of that number"))?;
        // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
        unsafe { sized::write(&translate(counted), out) }?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// How many workers the server has: loops under OMNI_MODEL_CORES, processes under
/// OMNI_MODEL_PREFORK, and 1 under the other models.
///
/// Returns the number or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_workers(server: *const omni_server) -> c_int {
    call("omni_server_workers", server, |server| Ok(to_count(server.handle.stats().workers.len())))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes what every worker has counted to `buffer` in Prometheus' text format, version 0.0.4, as
/// snprintf(3) writes: as much as `capacity` bytes have room for, ended by a zero. Each number of
/// `omni_server_statistics` is a metric `omnipoll_server_...` whose label `worker` is the worker's
/// number. It is what a server answers to `GET /metrics`, from any thread.
///
/// Returns the length of the whole text, without the zero, or:
///   -EINVAL: `buffer` is NULL and `capacity` isn't 0.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_prometheus(
    server: *const omni_server,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_server_prometheus", server, |server| {
        let text = server.handle.stats().prometheus();
        // SAFETY: NULL, or `capacity` bytes, by this function's contract.
        unsafe { write_str(&text, buffer, capacity) }
    })
}

fn translate(stats: &WorkerStats) -> omni_server_statistics {
    omni_server_statistics {
        size: 0,
        reserved: 0,
        accepted: stats.accepted,
        active: stats.active,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        refused: stats.refused,
        timed_out: stats.timed_out,
        accept_pauses: stats.accept_pauses,
        writes_refused: stats.writes_refused,
        datagrams_in: stats.datagrams_in,
        datagrams_out: stats.datagrams_out,
        datagrams_dropped: stats.datagrams_dropped,
        restarts: stats.restarts,
        refused_header: stats.refused_header,
        refused_filter: stats.refused_filter,
        refused_address: stats.refused_address,
        refused_rate: stats.refused_rate,
    }
}
