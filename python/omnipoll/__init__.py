"""One readiness interface over select, poll, epoll and io_uring, with the same meaning on each.

`Poller` watches descriptors, timers, signals and children, and waits for all of it at once. The
selectors have the interface of the standard library's `selectors`, so that asyncio, socketserver
and every program written for those run on them; what they add is in `omnipoll.selectors`. `Server` serves
many clients behind one handler, by loops, threads or processes; `Loop` is one such loop of the program's
own, for connections in and out and all that a poller watches.

Flags are plain ints: an event is tested with `event.ready & omnipoll.READ`, and an enum's `&`
would cost more than the wait.

`run(main())` runs a coroutine on an asyncio loop of ours, `new_event_loop()` makes one; `omnipoll.aio` is
imported, and asyncio with it, when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnipoll._native import (
    ACCEPTED,
    CHILD,
    CLOSED,
    CONN_POST,
    CONN_TIMER,
    CONNECTED,
    DATA,
    DATAGRAM,
    DATAGRAM_ERROR,
    DRAINED,
    EDGE,
    ENDED,
    ERROR,
    EXCLUSIVE,
    HANGUP,
    HAS_EXCLUSIVE,
    INVALID,
    IO,
    NATIVE_EDGE,
    ONESHOT,
    POST,
    PRIORITY,
    READ,
    READ_CLOSED,
    REPORTS_HANGUP,
    REPORTS_READ_CLOSED,
    SIGNAL,
    STOPPING,
    TIMER,
    WAKE,
    WRITE,
    Connection,
    Datagram,
    DatagramSocket,
    Event,
    Finding,
    Loop,
    LoopEvent,
    Poller,
    Registered,
    ServerStats,
    Stats,
    StrictWarning,
    Worker,
    WorkerStats,
    __version__,
)
from omnipoll.features import EngineFeature, engine_features
from omnipoll.selectors import (
    EVENT_EDGE,
    EVENT_EXCLUSIVE,
    EVENT_ONESHOT,
    EVENT_PRIORITY,
    EVENT_READ,
    EVENT_WRITE,
    DefaultSelector,
    EpollSelector,
    IoUringSelector,
    PollSelector,
    SelectSelector,
)
from omnipoll.serving import Server, serve

if TYPE_CHECKING:
    from omnipoll.aio import EventLoopPolicy, new_event_loop, run
else:

    def __getattr__(name: str) -> object:
        if name not in ("EventLoopPolicy", "new_event_loop", "run"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from omnipoll import aio

        return getattr(aio, name)


__all__ = [
    "ACCEPTED",
    "CHILD",
    "CLOSED",
    "CONNECTED",
    "CONN_POST",
    "CONN_TIMER",
    "DATA",
    "DATAGRAM",
    "DATAGRAM_ERROR",
    "DRAINED",
    "EDGE",
    "ENDED",
    "ERROR",
    "EVENT_EDGE",
    "EVENT_EXCLUSIVE",
    "EVENT_ONESHOT",
    "EVENT_PRIORITY",
    "EVENT_READ",
    "EVENT_WRITE",
    "EXCLUSIVE",
    "HANGUP",
    "HAS_EXCLUSIVE",
    "INVALID",
    "IO",
    "NATIVE_EDGE",
    "ONESHOT",
    "POST",
    "PRIORITY",
    "READ",
    "READ_CLOSED",
    "REPORTS_HANGUP",
    "REPORTS_READ_CLOSED",
    "SIGNAL",
    "STOPPING",
    "TIMER",
    "WAKE",
    "WRITE",
    "Connection",
    "Datagram",
    "DatagramSocket",
    "DefaultSelector",
    "EngineFeature",
    "EpollSelector",
    "Event",
    "EventLoopPolicy",
    "Finding",
    "IoUringSelector",
    "Loop",
    "LoopEvent",
    "PollSelector",
    "Poller",
    "Registered",
    "SelectSelector",
    "Server",
    "ServerStats",
    "Stats",
    "StrictWarning",
    "Worker",
    "WorkerStats",
    "__version__",
    "engine_features",
    "new_event_loop",
    "run",
    "serve",
]
