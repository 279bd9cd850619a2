"""Children: how the loop learns that a program it has started has ended.

Before Python 3.12 the standard library has a thread wait for each. A pidfd takes none: the loop polls it.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnipoll.aio.event_loop import EventLoop


def is_default(watcher: asyncio.AbstractChildWatcher) -> bool:
    """Whether a watcher is the one that nobody has chosen, and pidfds can take its place."""
    return type(watcher) is asyncio.ThreadedChildWatcher and hasattr(os, "pidfd_open")


async def start(loop: EventLoop, watcher: asyncio.AbstractChildWatcher, *what: Any, **keywords: Any) -> Any:
    """Start a program, and return its transport. The watcher helps out when there is no descriptor left."""
    waiter = loop.create_future()
    transport = unix_events._UnixSubprocessTransport(  # type: ignore[attr-defined]
        loop, *what, waiter=waiter, **keywords
    )
    pid = transport.get_pid()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        watcher.add_child_handler(pid, loop._child_watcher_callback, transport)
    else:
        loop._pidfds.add(pidfd)
        loop._add_reader(pidfd, _ended, loop, pid, pidfd, transport)
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    return transport


def _ended(loop: EventLoop, pid: int, pidfd: int, transport: Any) -> None:
    loop._remove_reader(pidfd)
    loop._pidfds.remove(pidfd)
    os.close(pidfd)
    try:
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        # Somebody else has waited for it.
        code = 255
        logger.warning("child process pid %d exit status already read:  will report returncode 255", pid)
    loop._child_watcher_callback(pid, code, transport)
