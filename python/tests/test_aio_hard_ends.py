"""The asyncio loop where programs end badly: cancelled in masses, closed too early, dropped at the exit."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Callable

import aio
import pytest

from omnipoll.aio import EventLoop

HERE = os.path.dirname(os.path.abspath(__file__))
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


# ---- Exceptions ---------------------------------------------------------------------------------------


class Failing(asyncio.DatagramProtocol, asyncio.Protocol):
    """Raises when it is called by one method."""

    def __init__(self, method: str) -> None:
        setattr(self, method, fail)


def fail(*_: object) -> None:
    raise ZeroDivisionError


def by_callback(loop: EventLoop, theirs: socket.socket) -> None:
    loop.call_soon(fail)


def by_thread(loop: EventLoop, theirs: socket.socket) -> None:
    threading.Thread(target=loop.call_soon_threadsafe, args=(fail,)).start()


def by_timer(loop: EventLoop, theirs: socket.socket) -> None:
    loop.call_later(0.001, fail)


def by_reader(loop: EventLoop, theirs: socket.socket) -> None:
    def read() -> None:
        loop.remove_reader(theirs)
        fail()

    loop.add_reader(theirs, read)


def by_writer(loop: EventLoop, theirs: socket.socket) -> None:
    def write() -> None:
        loop.remove_writer(theirs)
        fail()

    loop.add_writer(theirs, write)


def by_signal_handler(loop: EventLoop, theirs: socket.socket) -> None:
    def handle() -> None:
        loop.remove_signal_handler(signal.SIGUSR2)
        fail()

    loop.add_signal_handler(signal.SIGUSR2, handle)
    os.kill(os.getpid(), signal.SIGUSR2)


def by_connection_made(loop: EventLoop, theirs: socket.socket) -> None:
    connect = loop.create_connection(lambda: Failing("connection_made"), sock=theirs.dup())
    loop.call_soon(loop.create_task, connect)


def by_datagram_received(loop: EventLoop, theirs: socket.socket) -> None:
    address = ("127.0.0.1", 0)

    async def send() -> None:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Failing("datagram_received"), local_addr=address
        )
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        loop.call_later(0.1, transport.close)

    loop.call_soon(loop.create_task, send())


KINDS = [by_callback, by_thread, by_timer, by_reader, by_writer, by_signal_handler]
KINDS += [by_connection_made, by_datagram_received]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("handler_fails", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_raised_is_reported_and_the_loop_goes_on(
    loop: EventLoop, kind: Callable[..., None], handler_fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[dict[str, object]] = []
    reported = aio.run(loop, aio.new_event())

    def handle(_: object, context: dict[str, object]) -> None:
        reports.append(context)
        reported.set()
        if handler_fails:
            raise IndexError

    async def main() -> None:
        kind(loop, theirs)
        await reported.wait()
        assert await aio.converse(1) == [0]

    loop.set_exception_handler(handle)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"x")
        theirs.setblocking(False)
        aio.run(loop, main())
    (report,) = reports
    assert type(report["exception"]) is ZeroDivisionError
    assert bool(caplog.records) == handler_fails


# ---- Cancellation ---------------------------------------------------------------------------------------


def test_hundreds_of_tasks_that_wait_for_sockets_are_cancelled(loop: EventLoop) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        (ours, theirs), (full, unread) = socket.socketpair(), socket.socketpair()
        with listener, ours, theirs, full, unread:
            for sock in (listener, ours, theirs, full):
                sock.setblocking(False)
            kept: list[Any] = []  # From 3.13 on a connection ends with its writer.
            server = await asyncio.start_server(lambda *streams: kept.append(streams), "127.0.0.1", 0)
            address = server.sockets[0].getsockname()

            async def connect_and_read() -> None:
                reader, writer = await asyncio.open_connection(*address)
                try:
                    await reader.read()
                finally:
                    writer.close()

            waits: tuple[Callable[[], Coroutine[Any, Any, Any]], ...] = (
                lambda: loop.sock_recv(theirs, 100),
                lambda: loop.sock_accept(listener),
                lambda: asyncio.wait_for(loop.sock_recv(ours, 100), LONG),
                lambda: loop.sock_sendall(full, b"x" * 10_000_000),
                connect_and_read,
            )
            for turns in (1, 5, 40):
                tasks = [loop.create_task(waits[number % len(waits)]()) for number in range(200)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in done)
            # The sockets still do what they did.
            ours.send(b"last")
            assert await loop.sock_recv(theirs, 100) == b"last"
            server.close()

    aio.run(loop, main())


# ---- The end of a program -------------------------------------------------------------------------------


def ends_well(program: str, engine: str) -> None:
    """Runs it; it says that it has ended, and nothing else."""
    command = [sys.executable, "-W", "ignore", "-c", program, engine]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=HERE)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    # Before 3.10 asyncio logs what an executor finishes after the loop was closed.
    if sys.version_info >= (3, 10):
        assert not ended.stderr


PENDING = """
import asyncio, signal, socket, sys, time
from omnipoll.aio import EventLoop

async def main(loop):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * 10_000_000)
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    loop.call_later(30, print)
    loop.call_soon(print, "too late")
    loop.add_signal_handler(signal.SIGUSR1, print)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop.add_writer(theirs, print)
    loop._remove_writer(theirs)
    loop.waiting = loop._start_receiving(ours, 100)
    loop.in_thread = loop.run_in_executor(None, time.sleep, 0.1)
    loop.kept = server, reader, writer, datagrams, ours, theirs
    loop.stop()

loop = EventLoop(sys.argv[1])
loop.create_task(main(loop))
loop.run_forever()
loop.close()
loop.close()
writer = loop.kept[2]
for call in (writer.close, writer.transport.abort, loop.kept[3].close, lambda: writer.write(b"x")):
    try:
        call()
    except RuntimeError:
        pass
del loop, writer, call
print("ended")
"""

CALLS_AT_THE_EXIT = """
import asyncio, sys, threading, time
from omnipoll.aio import EventLoop
loop = EventLoop(sys.argv[1])
started = threading.Event()

def call():
    while True:
        loop.call_soon_threadsafe(started.set)
        time.sleep(0.00001)

for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
async def main():
    while not started.is_set():
        await asyncio.sleep(0.001)
loop.run_until_complete(main())
print("ended")
"""


@pytest.mark.parametrize("program", [PENDING, CALLS_AT_THE_EXIT], ids=["pending", "calls"])
def test_a_program_that_ends_hard_ends_well(program: str, engine: str) -> None:
    ends_well(program, engine)


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
