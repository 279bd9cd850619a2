"""Programs that the asyncio loop starts: how it learns of their ends."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from typing import Any

import aio
import pytest

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)


async def cat() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)


def waiting_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "waitpid" in thread.name]


async def end(process: asyncio.subprocess.Process) -> int:
    assert process.stdin
    process.stdin.close()
    return await process.wait()


def test_no_thread_waits_for_a_child(loop: EventLoop) -> None:
    async def main() -> None:
        process = await cat()
        assert waiting_threads() == []
        assert await end(process) == 0
        killed = await cat()
        killed.kill()
        assert await killed.wait() == -9

    aio.run(loop, main())


if sys.version_info < (3, 12):
    # From 3.12 on the standard library's own code waits for children.

    def test_without_a_descriptor_for_it_a_child_is_waited_for_all_the_same(
        loop: EventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none_left(pid: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        async def main() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pidfd_open", none_left)
                process = await cat()
            assert await end(process) == 0

        aio.run(loop, main())

    def test_a_watcher_that_was_chosen_is_asked(loop: EventLoop) -> None:
        class Chosen(asyncio.ThreadedChildWatcher):
            def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
                asked.append(pid)
                super().add_child_handler(pid, callback, *args)

        async def main() -> None:
            process = await cat()
            assert await end(process) == 0
            assert asked == [process.pid]

        asked: list[int] = []
        before = asyncio.get_child_watcher()
        asyncio.set_child_watcher(Chosen())
        try:
            aio.run(loop, main())
        finally:
            asyncio.set_child_watcher(before)

    def test_a_loop_that_is_closed_before_its_child_ends_keeps_no_descriptor(loop: EventLoop) -> None:
        def pidfds() -> list[str]:
            links = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{fd}"))
                except FileNotFoundError:  # The folder's own.
                    pass
            return [link for link in links if "pidfd" in link]

        processes = []

        async def main() -> None:
            processes.append(await cat())

        aio.run(loop, main())
        assert len(pidfds()) == 1
        transport = processes[0]._transport  # type: ignore[attr-defined]
        child = transport.get_extra_info("subprocess")
        loop.close()
        assert pidfds() == []
        child.stdin.close()
        child.wait()
        transport._closed = True  # It can't close itself without its loop.
