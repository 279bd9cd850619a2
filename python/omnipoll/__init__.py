"""One readiness interface over select, poll and epoll, with the same meaning on each.

`Poller` watches descriptors, timers, signals and children, and waits for all of it at once. The
selectors have the interface of the standard library's `selectors`, so that asyncio, socketserver
and every program written for those run on them; what they add is in `omnipoll.selectors`.

Flags are plain ints: an event is tested with `event.ready & omnipoll.READ`, and an enum's `&`
would cost more than the wait.
"""

from omnipoll._native import (
    CHILD,
    EDGE,
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
    SIGNAL,
    TELLS_HANGUP,
    TELLS_READ_CLOSED,
    TIMER,
    WAKE,
    WRITE,
    Event,
    Poller,
    __version__,
)
from omnipoll.selectors import (
    EVENT_EDGE,
    EVENT_EXCLUSIVE,
    EVENT_ONESHOT,
    EVENT_PRIORITY,
    EVENT_READ,
    EVENT_WRITE,
    DefaultSelector,
    EpollSelector,
    PollSelector,
    SelectSelector,
)

__all__ = [
    "CHILD",
    "EDGE",
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
    "SIGNAL",
    "TELLS_HANGUP",
    "TELLS_READ_CLOSED",
    "TIMER",
    "WAKE",
    "WRITE",
    "DefaultSelector",
    "EpollSelector",
    "Event",
    "PollSelector",
    "Poller",
    "SelectSelector",
    "__version__",
]
