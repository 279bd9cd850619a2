//! `omni_server_options`: the core's options under their C names.

use std::ffi::c_char;
use std::mem::offset_of;
use std::time::Duration;

use omnipoll::{Model, ServerOptions};

use crate::engine::engine_kind;
use crate::error::Failure;
use crate::option_values::{count, list, some_time, some_u32, with};
use crate::restart::omni_restart_options;
use crate::sized::{self, Sized32};
use crate::wait_policy::wait_policy;

/// Flag of omni_server_options: SIGTERM and SIGINT stop the server; its clients then have
/// `drain_ns` to finish, and a second signal ends it at once. Without it the program handles
/// signals.
pub const OMNI_SERVER_SIGNALS: u32 = 0x1;
/// Flag of omni_server_options: each worker has a listening socket of its own (SO_REUSEPORT), and
/// the system gives each the same share of the clients. OMNI_MODEL_CORES does this by default.
pub const OMNI_SERVER_REUSE_PORT: u32 = 0x2;
/// Flag of omni_server_options: the workers share one listening socket, so that no client is
/// lost when one of them dies. OMNI_MODEL_PREFORK does this by default.
pub const OMNI_SERVER_SHARE_PORT: u32 = 0x4;
/// Flag of omni_server_options: the service manager is notified, where `NOTIFY_SOCKET` in
/// the environment says that there is one (sd_notify(3)): `READY=1` when every worker has begun to serve,
/// `STOPPING=1` when the server begins to stop, and, with `WATCHDOG_USEC`, `WATCHDOG=1` at half of that time,
/// by the loop in the thread of `omni_server_run`. `omni_server_notify` sends others.
pub const OMNI_SERVER_NOTIFY: u32 = 0x8;

/// Flag of omni_server_options: small writes on TCP wait while others are under way, as the system has it by
/// default. Without it they are sent at once (TCP_NODELAY).
pub const OMNI_SERVER_DELAY: u32 = 0x100;
/// Flag of omni_server_options: an address may be listened on that this machine does not have yet
/// (IP_FREEBIND). Linux's.
pub const OMNI_SERVER_FREE_BIND: u32 = 0x200;
/// Flag of omni_server_options: clients of any address that is routed here are accepted (IP_TRANSPARENT).
/// `omni_server_listen` is -EPERM without CAP_NET_ADMIN. Linux's.
pub const OMNI_SERVER_TRANSPARENT: u32 = 0x400;
/// Flag of omni_server_options: each worker of OMNI_MODEL_CORES and OMNI_MODEL_PREFORK stays on a processor of
/// its own: worker 0 on the first that the process may use, and so on, round and round. Under
/// OMNI_MODEL_REACTOR the loop stays on the first; the other models have no workers. Linux's.
pub const OMNI_SERVER_PIN_WORKERS: u32 = 0x800;

/// How a server serves. 0 is the default in every field: fill the struct with zeros, set `size`, and
/// then what is to differ.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_server_options {
    /// sizeof(omni_server_options).
    pub size: u32,
    /// OMNI_MODEL_REACTOR (as is 0) and so on.
    pub model: u32,
    /// The engine of every loop: OMNI_ENGINE_AUTO and so on.
    pub engine: u32,
    /// OMNI_SERVER_SIGNALS and so on, combined by `|`.
    pub flags: u32,
    /// How many loops or processes there are under OMNI_MODEL_CORES and OMNI_MODEL_PREFORK. 0: one
    /// for each core that the process may use.
    pub workers: u32,
    /// How many clients are served at once; those beyond wait in the listening socket's queue. 0:
    /// 512 under OMNI_MODEL_THREAD and OMNI_MODEL_FORK, elsewhere no limit. The workers of
    /// OMNI_MODEL_CORES and OMNI_MODEL_PREFORK have equal shares.
    pub max_clients: u32,
    /// How many clients may wait to be accepted, as listen(2) takes it. 0: 4,096. The system's
    /// own bound, net.core.somaxconn, holds besides.
    pub backlog: u32,
    /// OMNI_WAIT_BALANCED (as is 0), OMNI_WAIT_LATENCY or OMNI_WAIT_THRIFTY.
    pub wait_policy: u32,
    /// How many bytes may wait to be sent on one connection; a write beyond is -ENOBUFS. 0: 16 MiB.
    pub queue_limit: u64,
    /// How many bytes may wait to be sent in the whole process; a write beyond is -ENOBUFS. 0: 256
    /// MiB.
    pub total_queue_limit: u64,
    /// While more bytes than this wait to be sent on a connection that was accepted, nothing is read from
    /// it. 0: 64 KiB.
    pub high_water: u64,
    /// When no more than this wait, it is read again, and `on_drain` is called. 0: 16 KiB. Not
    /// more than `high_water`.
    pub low_water: u64,
    /// Ends a connection with -ETIMEDOUT on which nothing was read or written for so long. 0: none.
    /// All times are in nanoseconds; here and in the next a negative one is none as well.
    pub idle_timeout_ns: i64,
    /// The same when nothing arrived for so long while the connection was being read.
    pub read_timeout_ns: i64,
    /// The same when bytes waited to be sent and none could be for so long. 0: one minute; negative:
    /// none.
    pub write_timeout_ns: i64,
    /// How long a closed connection waits for its peer to read what was sent and to end its
    /// direction too. 0: two seconds; negative: no time.
    pub linger_ns: i64,
    /// How long clients may still be served after a signal (OMNI_SERVER_SIGNALS), or in a process
    /// whose parent has died. 0: ten seconds; negative: no limit.
    pub drain_ns: i64,
    /// The time of the wait policy, in nanoseconds: above 0 with one, and 0 without.
    pub wait_ns: i64,
    /// Requires of each client a header of the PROXY protocol, version 1 or 2, within this time of being
    /// accepted; not above 0: none is expected. `on_open` is called when the header is complete, and
    /// `omni_conn_peer` and `omni_conn_local` write the addresses that it has; where it has none ("UNKNOWN",
    /// LOCAL, unix sockets) they remain the socket's own. What follows it is data. A client that begins
    /// otherwise, whose header is malformed or longer than 4,096 bytes, or is not complete in time, is reset
    /// and counted in `refused_header`. Let only proxies connect to such a server: it believes them.
    pub proxy_header_ns: i64,
    /// How many connections each address may have at once, exactly over all workers. 0: no limit. An IPv6
    /// address counts by its first 64 bits. A client beyond is reset before `on_open`, and counted in
    /// `refused_address`. The table has a fixed size: 16 bytes and 8 for each worker, for each of 65,536
    /// addresses that have connections or have made one in the last second; a new one for which there is no
    /// room is refused too.
    pub max_address_clients: u32,
    /// How many new connections a second each address may make: so many at once, and then one more each time
    /// that a second divided by their number has passed. 0: no limit. One beyond is reset before `on_open`, and
    /// counted in `refused_rate`.
    pub max_address_rate: u32,
    /// From which networks clients are accepted, separated by commas or spaces: "10.0.0.0/8, 2001:db8::/32,
    /// 192.0.2.1". NULL or empty: from all. Others are reset before `on_open`, and counted in `refused_filter`.
    /// The address is that of the header where `proxy_header_ns` requires one. Clients of unix sockets are
    /// always accepted. The text is copied.
    pub allow: *const c_char,
    /// From which networks none are accepted, even if they are allowed.
    pub deny: *const c_char,
    /// How many bytes a second are read from each client, on average: so many may come at once, then its
    /// writes wait. 0: no limit.
    pub max_receive_rate: u64,
    /// How the server is replaced by a new process; NULL: it is not. Copied. Under OMNI_MODEL_CORES the loops
    /// share their listening sockets then, as with OMNI_SERVER_SHARE_PORT.
    pub restart: *const omni_restart_options,
    /// After how many seconds without anything from a TCP client the system asks whether it is still there,
    /// after how many again, and after how many questions without an answer it ends the connection with
    /// -ETIMEDOUT (SO_KEEPALIVE). All three, or none: it never asks. These options of sockets, those that
    /// follow and the flags hold for each worker's; sockets that are inherited keep those that they have.
    pub keep_alive_idle: u32,
    /// See `keep_alive_idle`.
    pub keep_alive_interval: u32,
    /// See `keep_alive_idle`.
    pub keep_alive_count: u32,
    /// For how many seconds a TCP client is not reported that has sent nothing (TCP_DEFER_ACCEPT). Linux's:
    /// `omni_server_listen` is -ENOTSUP elsewhere.
    pub defer_accept: u32,
    /// From how many TCP clients whose connections are not established yet what they send in their first packet
    /// is taken (TCP_FASTOPEN), as far as net.ipv4.tcp_fastopen allows it. Linux's.
    pub fast_open: u32,
    /// The permissions of the file of a unix socket, at most 0777, set before it accepts anybody. 0: what the
    /// umask leaves of 0777.
    pub unix_mode: u32,
    /// The owner of the file of a unix socket; 0: as it is.
    pub unix_user: u32,
    /// The group of the file of a unix socket; 0: as it is.
    pub unix_group: u32,
    /// How many bytes the system keeps for each socket that the program has not read (SO_RCVBUF). 0: what suits
    /// the connection.
    pub receive_buffer: u64,
    /// How many bytes the system keeps for each socket that the peer has not got (SO_SNDBUF). 0: as above.
    pub send_buffer: u64,
    /// Groups whose datagrams the "udp:" addresses of the same family receive too: "239.1.2.3, ff02::fb%eth0",
    /// with an interface's name or number, or the one that the system chooses. NULL or empty: none. The text
    /// is copied.
    pub multicast: *const c_char,
    /// After how many clients a worker of OMNI_MODEL_PREFORK is replaced by another one, which serves before the
    /// old one stops accepting; the old one's clients have `drain_ns`. 0: no limit.
    pub clients_per_worker: u64,
    /// Up to how many clients more, so that not all workers are replaced at once.
    pub clients_jitter: u64,
    /// After what time a worker of OMNI_MODEL_PREFORK whose loop does not turn is killed: it is replaced, and
    /// counted as one that has died. The loop of each worker wakes four times in it. 0: none is.
    pub hang_timeout_ns: i64,
}

// SAFETY: as declared above; each zero is a number's or NULL.
unsafe impl Sized32 for omni_server_options {
    const MIN_SIZE: usize = offset_of!(Self, drain_ns) + size_of::<i64>();
    const UNSET: &'static str = "the size of the options is not set";
}

impl omni_server_options {
    /// As the core takes them.
    ///
    /// # Safety
    /// `restart` is NULL, or as its struct's documentation says.
    pub(crate) unsafe fn translate(&self) -> Result<ServerOptions, Failure> {
        const PORTS: u32 = OMNI_SERVER_REUSE_PORT | OMNI_SERVER_SHARE_PORT;
        const SOCKETS: u32 =
            OMNI_SERVER_DELAY | OMNI_SERVER_FREE_BIND | OMNI_SERVER_TRANSPARENT | OMNI_SERVER_PIN_WORKERS;
        if self.flags & !(OMNI_SERVER_SIGNALS | PORTS | OMNI_SERVER_NOTIFY | SOCKETS) != 0 {
            return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
        }
        if self.flags & PORTS == PORTS {
            return Err(Failure::new(libc::EINVAL, "a port is either reused or shared"));
        }
        let ports = (self.flags & PORTS != 0).then_some(self.flags & OMNI_SERVER_REUSE_PORT != 0);
        let drain = match self.drain_ns {
            0 => None,
            drain => Some(some_time(drain)),
        };
        let options = ServerOptions::new()
            .model(self.model()?)
            .wait_policy(wait_policy(self.wait_policy, self.wait_ns)?)
            .signals(self.flags & OMNI_SERVER_SIGNALS != 0)
            .notify(self.flags & OMNI_SERVER_NOTIFY != 0)
            .water_marks(
                count(self.low_water).unwrap_or(16 << 10),
                count(self.high_water).unwrap_or(64 << 10),
            );
        let restart = match self.restart.is_null() {
            true => None,
            // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
            false => Some(unsafe { sized::read(self.restart)?.translate() }?),
        };
        let options = with(options, restart, ServerOptions::restart);
        let options = match self.clients_per_worker {
            0 => options,
            clients => options.clients_per_worker(clients, self.clients_jitter),
        };
        let options = with(options, some_time(self.hang_timeout_ns), ServerOptions::hang_timeout);
        let options = with(options, engine_kind(self.engine)?, ServerOptions::engine);
        let options = with(options, ports, ServerOptions::reuse_port);
        let options = with(options, count(self.workers.into()), ServerOptions::workers);
        let options = with(options, count(self.max_clients.into()), ServerOptions::max_clients);
        let backlog = count(self.backlog.into()).map(|clients| clients.try_into().unwrap_or(i32::MAX));
        let options = with(options, backlog, ServerOptions::backlog);
        let options = with(options, count(self.queue_limit), ServerOptions::queue_limit);
        let options = with(options, count(self.total_queue_limit), ServerOptions::total_queue_limit);
        let options = with(options, some_time(self.idle_timeout_ns), ServerOptions::idle_timeout);
        let options = with(options, some_time(self.read_timeout_ns), ServerOptions::read_timeout);
        let options =
            with(self.of_sockets(options)?, some_time(self.proxy_header_ns), ServerOptions::proxy_header);
        let options = with(options, some_u32(self.max_address_clients), ServerOptions::max_address_clients);
        let options = with(options, some_u32(self.max_address_rate), ServerOptions::max_address_rate);
        // SAFETY: NULL or texts by the contract of this struct.
        let (allow, deny) = unsafe { (list(self.allow)?, list(self.deny)?) };
        let options = options.allow(allow).deny(deny).max_receive_rate(self.max_receive_rate);
        let write_timeout = (self.write_timeout_ns != 0).then(|| some_time(self.write_timeout_ns));
        let options = with(options, write_timeout, ServerOptions::write_timeout);
        let linger = (self.linger_ns != 0).then(|| some_time(self.linger_ns).unwrap_or_default());
        let options = with(options, linger, ServerOptions::linger);
        Ok(with(options, drain, ServerOptions::drain))
    }

    /// What is set on its sockets.
    fn of_sockets(&self, options: ServerOptions) -> Result<ServerOptions, Failure> {
        let seconds = |time: u32| Duration::from_secs(time.into());
        let mut options = options
            .no_delay(self.flags & OMNI_SERVER_DELAY == 0)
            .free_bind(self.flags & OMNI_SERVER_FREE_BIND != 0)
            .transparent(self.flags & OMNI_SERVER_TRANSPARENT != 0)
            .pin_workers(self.flags & OMNI_SERVER_PIN_WORKERS != 0)
            // SAFETY: NULL or a text by the contract of this struct.
            .multicast(unsafe { list(self.multicast) }?);
        let keep_alive = (self.keep_alive_idle, self.keep_alive_interval, self.keep_alive_count);
        if let (1.., _, _) | (_, 1.., _) | (_, _, 1..) = keep_alive {
            options = options.keep_alive(seconds(keep_alive.0), seconds(keep_alive.1), keep_alive.2);
        }
        if self.unix_user > 0 || self.unix_group > 0 {
            options = options.unix_owner(some_u32(self.unix_user), some_u32(self.unix_group));
        }
        let options = with(options, some_u32(self.unix_mode), ServerOptions::unix_mode);
        let options = with(options, some_u32(self.fast_open), ServerOptions::fast_open);
        let options = with(options, count(self.receive_buffer), ServerOptions::receive_buffer);
        let options = with(options, count(self.send_buffer), ServerOptions::send_buffer);
        Ok(with(options, some_u32(self.defer_accept).map(seconds), ServerOptions::defer_accept))
    }

    fn model(&self) -> Result<Model, Failure> {
        match self.model {
            0 => Ok(Model::Reactor),
            number => Model::from_number(number)
                .ok_or(Failure::new(libc::EINVAL, "there is no model of that number")),
        }
    }
}
