"""The asyncio loop where programs end badly: cancelled in masses, closed too early, dropped at the exit."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys

import aio
import pytest

from omnipoll.aio import EventLoop

LONG = 30
TASKS = 1000
CONNECTIONS = 300


loop = pytest.fixture(aio.open_loop)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_thousand_tasks_are_cancelled_wherever_they_wait(loop: EventLoop) -> None:
    async def main() -> None:
        lock, never = asyncio.Lock(), loop.create_future()
        await lock.acquire()
        waits = (
            lambda: asyncio.sleep(LONG),
            lock.acquire,
            lambda: asyncio.wait_for(asyncio.shield(never), LONG),
        )
        tasks = [loop.create_task(waits[number % 3]()) for number in range(TASKS)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LONG)
        assert all(isinstance(one, asyncio.CancelledError) for one in done)
        assert not never.done()

    loop.run_until_complete(main())


def test_connections_opened_and_closed_leave_no_descriptor(loop: EventLoop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for _ in range(CONNECTIONS // 10):
            await asyncio.wait_for(asyncio.gather(*(talk(port) for _ in range(10))), LONG)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.sleep(0))
    before = descriptors()
    loop.run_until_complete(main())
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_closed_with_things_pending_leaves_no_descriptor(engine: str) -> None:
    before = descriptors()
    loop = EventLoop(engine)

    async def main(loop: EventLoop) -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x" * 10_000_000)  # More than the sockets hold.
        loop.call_later(LONG, print)
        # Referred to by the loop only.
        loop.leftover = server, reader, writer  # type: ignore[attr-defined]

    loop.run_until_complete(asyncio.wait_for(main(loop), LONG))
    loop.close()
    del loop
    assert descriptors() == before


def test_a_loop_runs_in_a_daemon_thread_at_the_exit(engine: str) -> None:
    program = f"""
import asyncio, threading
from omnipoll.aio import EventLoop
other = EventLoop({engine!r})
running = threading.Event()
def turn():
    other.call_soon(turn)
other.call_soon(turn)
other.call_soon(running.set)
threading.Thread(target=other.run_forever, daemon=True).start()
running.wait()
loop = EventLoop({engine!r})
loop.run_until_complete(asyncio.sleep(0))
loop.close()
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
