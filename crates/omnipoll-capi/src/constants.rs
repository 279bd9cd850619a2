//! The numbers of the API. Part of the ABI: none ever changes its value.

use omnipoll::{Capabilities, EngineKind, EventKind, FindingKind, Interest, Model, Ready, Trigger};

/// The version of this header, 0xMMmmpp00 (major, minor, patch). `omni_version` tells the
/// library's.
pub const OMNI_VERSION: u32 = 0x0001_0000;

/// Engine: the one that the environment variable `OMNIPOLL_ENGINE` names, or else the best here.
pub const OMNI_ENGINE_AUTO: u32 = 0;
/// Engine: select(2), without its limit of 1024. Its cost grows with the highest descriptor.
pub const OMNI_ENGINE_SELECT: u32 = 1;
/// Engine: poll(2). Its cost grows with the number of descriptors watched.
pub const OMNI_ENGINE_POLL: u32 = 2;
/// Engine: epoll(7), Linux. Its cost grows with the number of descriptors that are ready.
pub const OMNI_ENGINE_EPOLL: u32 = 3;
/// Engine: io_uring(7). Linux 5.17, where it is not forbidden.
pub const OMNI_ENGINE_IO_URING: u32 = 4;
/// Engine: kqueue(2). Not available in this version.
pub const OMNI_ENGINE_KQUEUE: u32 = 5;

/// Flag of `omni_poller_new`: a signal ends a wait with -EINTR. Without it a wait goes on,
/// with the time that is left.
pub const OMNI_INTERRUPTIBLE: u32 = 1;
/// Flag of `omni_poller_new`: regular files and directories may be registered and are always
/// ready. Without it they are refused with -EPERM.
pub const OMNI_FILES_ALWAYS_READY: u32 = 2;
/// Flag of `omni_poller_new`: strict mode, which looks for mistakes in the use of the poller and
/// says each once for a registration, in words: OMNI_FINDING_BLOCKING_EDGE and those after it. Each
/// goes to the callback of `omni_poller_on_finding`, or else is a line on stderr. For development:
/// every wait then asks the system about every descriptor. `OMNIPOLL_STRICT=1` in the
/// environment does the same for every poller; without either it costs nothing.
pub const OMNI_STRICT: u32 = 4;

/// Interest: a read would not block. Ready: so it is: data, end of file, a connection to
/// accept, or an error to be told.
pub const OMNI_READ: u32 = 1;
/// Interest: a write would not block. Ready: so it is: room, a connect that has ended, or an
/// error to be told.
pub const OMNI_WRITE: u32 = 2;
/// Interest and ready: urgent data (POLLPRI, the third set of select).
pub const OMNI_PRIORITY: u32 = 4;
/// Ready: the peer will send no more; what it sent may still have to be read. Reported only where
/// the engine has OMNI_TELLS_READ_CLOSED (poll, epoll, io_uring) and OMNI_READ was asked for.
pub const OMNI_READ_CLOSED: u32 = 8;
/// Ready: both directions are closed; what was sent may still have to be read. Told only where
/// the engine has OMNI_TELLS_HANGUP, and then without being asked for.
pub const OMNI_HANGUP: u32 = 16;
/// Ready: an error is pending: the next read or write tells it, or getsockopt(SO_ERROR). Told
/// only where the engine has OMNI_TELLS_HANGUP, and then without being asked for.
pub const OMNI_ERROR: u32 = 32;
/// Ready: the descriptor was closed while it was registered. Told once; the registration has
/// ended. The select and poll engines tell it (select may call it OMNI_READ first, if it was
/// closed during a wait); epoll and io_uring report nothing.
pub const OMNI_INVALID: u32 = 64;

/// Trigger: report when the condition arises, and not again until it went away and came back
/// or something new arrived. Read or write until EAGAIN, then call `omni_poller_rearm`. Without it
/// the condition is reported by every wait as long as it holds.
pub const OMNI_EDGE: u32 = 0x100;
/// Trigger: report once, then be silent until `omni_poller_modify`. May be combined with OMNI_EDGE.
pub const OMNI_ONESHOT: u32 = 0x200;
/// Trigger: of several pollers that watch one file, wake one or a few only (EPOLLEXCLUSIVE).
/// Needs OMNI_HAS_EXCLUSIVE; goes with neither OMNI_PRIORITY nor OMNI_ONESHOT nor `omni_poller_modify`.
pub const OMNI_EXCLUSIVE: u32 = 0x400;

/// Capability: OMNI_HANGUP and OMNI_ERROR are told. Without it they show as OMNI_READ and
/// OMNI_WRITE alone.
pub const OMNI_TELLS_HANGUP: u32 = 1;
/// Capability: OMNI_READ_CLOSED is told. Without it it shows as OMNI_READ alone.
pub const OMNI_TELLS_READ_CLOSED: u32 = 2;
/// Capability: edges come from the kernel, and `omni_poller_rearm` is not needed.
pub const OMNI_NATIVE_EDGE: u32 = 4;
/// Capability: OMNI_EXCLUSIVE is to be had.
pub const OMNI_HAS_EXCLUSIVE: u32 = 8;

/// Kind of event: a descriptor is ready.
pub const OMNI_EVENT_IO: u32 = 1;
/// Kind of event: a timer has expired.
pub const OMNI_EVENT_TIMER: u32 = 2;
/// Kind of event: a signal has come.
pub const OMNI_EVENT_SIGNAL: u32 = 3;
/// Kind of event: a child has ended.
pub const OMNI_EVENT_CHILD: u32 = 4;
/// Kind of event: `omni_poller_wake` was called.
pub const OMNI_EVENT_WAKE: u32 = 5;
/// Kind of event: `omni_poller_post` was called.
pub const OMNI_EVENT_POST: u32 = 6;

/// Kind of finding: OMNI_EDGE on a descriptor without O_NONBLOCK: reading it until EAGAIN would block.
pub const OMNI_FINDING_BLOCKING_EDGE: u32 = 1;
/// Kind of finding: something was left to read under OMNI_EDGE and will not be reported again.
pub const OMNI_FINDING_UNDRAINED: u32 = 2;
/// Kind of finding: an OMNI_ONESHOT fired and was not enabled again, though there is
/// something to read.
pub const OMNI_FINDING_FORGOTTEN_ONESHOT: u32 = 3;
/// Kind of finding: a descriptor was closed before it was removed.
pub const OMNI_FINDING_CLOSED: u32 = 4;
/// Kind of finding: a descriptor was closed before it was removed, and its number stands for
/// another file.
pub const OMNI_FINDING_REUSED: u32 = 5;
/// Kind of finding: a descriptor was reported as nothing but writable a thousand times, and
/// nothing was written.
pub const OMNI_FINDING_BUSY_WRITER: u32 = 6;
/// Kind of finding: a thread was away from its loop for more than 100 ms.
pub const OMNI_FINDING_BLOCKED_LOOP: u32 = 7;
/// Kind of finding: a forked child used its parent's poller.
pub const OMNI_FINDING_FORKED_CHILD: u32 = 8;
/// Kind of finding: the poller was freed while a descriptor was registered.
pub const OMNI_FINDING_LEAKED: u32 = 9;

/// Model: one loop in one thread, for all the clients. Nothing runs at once; all memory is shared.
pub const OMNI_MODEL_REACTOR: u32 = 1;
/// Model: a loop for each core, each with its share of the clients, in threads that share memory.
pub const OMNI_MODEL_CORES: u32 = 2;
/// Model: a thread for each client. The threads share memory.
pub const OMNI_MODEL_THREAD: u32 = 3;
/// Model: a process for each client, forked when it comes. It sees memory as it was then, and what
/// it changes dies with it; a crash is one client's.
pub const OMNI_MODEL_FORK: u32 = 4;
/// Model: a fixed set of processes, forked at the start, and again when one dies. Each has memory
/// of its own and serves many clients.
pub const OMNI_MODEL_PREFORK: u32 = 5;

/// Flag of omni_server_options: SIGTERM and SIGINT stop the server; its clients then have
/// `drain_ns` to finish, and a second signal ends it at once. Without it signals are the
/// program's.
pub const OMNI_SERVER_SIGNALS: u32 = 1;
/// Flag of omni_server_options: each worker has a listening socket of its own (SO_REUSEPORT), and
/// the system gives each the same share of the clients. This is what OMNI_MODEL_CORES does anyway.
pub const OMNI_SERVER_REUSE_PORT: u32 = 2;
/// Flag of omni_server_options: the workers share one listening socket, so that no client is
/// lost when one of them dies. This is what OMNI_MODEL_PREFORK does anyway.
pub const OMNI_SERVER_SHARE_PORT: u32 = 4;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_ENGINE_SELECT == EngineKind::Select as u32);
    assert!(OMNI_ENGINE_POLL == EngineKind::Poll as u32);
    assert!(OMNI_ENGINE_EPOLL == EngineKind::Epoll as u32);
    assert!(OMNI_ENGINE_IO_URING == EngineKind::IoUring as u32);
    assert!(OMNI_ENGINE_KQUEUE == EngineKind::Kqueue as u32);
    assert!(OMNI_READ == Interest::READ.bits() && OMNI_READ == Ready::READ.bits());
    assert!(OMNI_WRITE == Interest::WRITE.bits() && OMNI_WRITE == Ready::WRITE.bits());
    assert!(OMNI_PRIORITY == Interest::PRIORITY.bits() && OMNI_PRIORITY == Ready::PRIORITY.bits());
    assert!(OMNI_READ_CLOSED == Ready::READ_CLOSED.bits());
    assert!(OMNI_HANGUP == Ready::HANGUP.bits());
    assert!(OMNI_ERROR == Ready::ERROR.bits());
    assert!(OMNI_INVALID == Ready::INVALID.bits());
    assert!(asks_for(OMNI_EDGE, Trigger::EDGE));
    assert!(asks_for(OMNI_ONESHOT, Trigger::ONESHOT));
    assert!(asks_for(OMNI_EXCLUSIVE, Trigger::EXCLUSIVE));
    assert!(OMNI_TELLS_HANGUP == Capabilities::TELLS_HANGUP.bits());
    assert!(OMNI_TELLS_READ_CLOSED == Capabilities::TELLS_READ_CLOSED.bits());
    assert!(OMNI_NATIVE_EDGE == Capabilities::NATIVE_EDGE.bits());
    assert!(OMNI_HAS_EXCLUSIVE == Capabilities::HAS_EXCLUSIVE.bits());
    assert!(OMNI_EVENT_IO == EventKind::Io as u32);
    assert!(OMNI_EVENT_TIMER == EventKind::Timer as u32);
    assert!(OMNI_EVENT_SIGNAL == EventKind::Signal as u32);
    assert!(OMNI_EVENT_CHILD == EventKind::Child as u32);
    assert!(OMNI_EVENT_WAKE == EventKind::Wake as u32);
    assert!(OMNI_EVENT_POST == EventKind::Post as u32);
    assert!(OMNI_FINDING_BLOCKING_EDGE == FindingKind::BlockingEdge as u32);
    assert!(OMNI_FINDING_UNDRAINED == FindingKind::Undrained as u32);
    assert!(OMNI_FINDING_FORGOTTEN_ONESHOT == FindingKind::ForgottenOneshot as u32);
    assert!(OMNI_FINDING_CLOSED == FindingKind::Closed as u32);
    assert!(OMNI_FINDING_REUSED == FindingKind::Reused as u32);
    assert!(OMNI_FINDING_BUSY_WRITER == FindingKind::BusyWriter as u32);
    assert!(OMNI_FINDING_BLOCKED_LOOP == FindingKind::BlockedLoop as u32);
    assert!(OMNI_FINDING_FORKED_CHILD == FindingKind::ForkedChild as u32);
    assert!(OMNI_FINDING_LEAKED == FindingKind::Leaked as u32);
    assert!(OMNI_MODEL_REACTOR == Model::Reactor as u32);
    assert!(OMNI_MODEL_CORES == Model::Cores as u32);
    assert!(OMNI_MODEL_THREAD == Model::Thread as u32);
    assert!(OMNI_MODEL_FORK == Model::Fork as u32);
    assert!(OMNI_MODEL_PREFORK == Model::Prefork as u32);
};

const fn asks_for(bit: u32, trigger: Trigger) -> bool {
    match Interest::from_bits(OMNI_READ | bit) {
        Some(interest) => interest.trigger().contains(trigger),
        None => false,
    }
}
