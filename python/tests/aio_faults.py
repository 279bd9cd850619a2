"""A program whose system calls fail, one after another: clients of a server, of streams and datagrams.

    python aio_faults.py ENGINE failing_calls.so

One JSON line for each fault that was injected, before and after it: a process that crashes or hangs has said
what its last fault was.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from omnipoll.aio import EventLoop

LIMIT = 20  # seconds for what takes milliseconds
CLIENTS = 3
MESSAGE = b"x" * 1_000_000

# Errors that mean nothing to a program: it is to notice none of these.
UNNOTICED = {
    errno.EINTR: (
        *("epoll_pwait2", "epoll_wait", "poll", "ppoll", "pselect6", "io_uring_enter"),
        *("accept4", "recvfrom", "sendto", "sendmsg"),
    ),
    errno.EAGAIN: ("accept4", "sendto", "sendmsg"),
}
ERRNOS = (
    errno.EINTR,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EMFILE,
    errno.ECONNABORTED,
    errno.EPERM,
)
NTH = (1, 4, 9)

control = ctypes.CDLL(sys.argv[2])
control.call_name.restype = ctypes.c_char_p


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def talk(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(MESSAGE)
        if await reader.readexactly(len(MESSAGE)) != MESSAGE:
            raise ValueError("not what was sent")
    finally:
        writer.close()
    await writer.wait_closed()


class Datagrams(asyncio.DatagramProtocol):
    """Sends datagrams to itself."""

    def __init__(self) -> None:
        self.received = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, address: Any) -> None:
        if not self.received.done():
            self.received.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)


async def datagrams() -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    try:
        transport.sendto(b"datagram", transport.get_extra_info("sockname"))
        await protocol.received
    finally:
        transport.close()


async def sockets() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        received = loop.create_task(loop.sock_recv(theirs, 100))
        await asyncio.sleep(0)
        await loop.sock_sendall(ours, b"bytes")
        await received


async def program() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    if not server.sockets:
        raise OSError("asyncio has given up silently")
    try:
        address = server.sockets[0].getsockname()
        everything = [talk(address) for _ in range(CLIENTS)] + [datagrams(), sockets()]
        done = await asyncio.gather(*everything, return_exceptions=True)
    finally:
        server.close()
    for one in done:
        if isinstance(one, BaseException):
            raise one from None
    await server.wait_closed()


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Faults:
    """Runs the program with faults, on one loop."""

    def __init__(self, engine: str) -> None:
        self.loop = EventLoop(engine)
        self.reported: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.reported.append(context))

    def run(self) -> BaseException | None:
        self.reported.clear()
        try:
            self.loop.run_until_complete(asyncio.wait_for(program(), LIMIT))
        except Exception as raised:
            return raised
        return None

    def settle(self) -> str:
        """What is wrong after a fault: tasks and descriptors that stay, a program that doesn't run."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.loop.run_until_complete(end())
        raised = self.run()
        if raised is not None or self.reported:
            return f"afterwards, without a fault: {raised!r}, {self.reported}"
        limit = time.monotonic() + LIMIT
        while descriptors() != self.descriptors:
            self.loop.run_until_complete(asyncio.sleep(0))
            if time.monotonic() > limit:
                return f"{descriptors()} descriptors are open, which were {self.descriptors}"
        return ""

    def inject(self) -> Iterator[tuple[list[Any], str]]:
        """Each fault, and what is wrong with what follows from it."""
        for _ in range(3):
            assert self.run() is None
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.descriptors = descriptors()
        call = -1
        while (name := control.call_name(call := call + 1)) is not None:
            for number in ERRNOS if control.call_count(call) else ():
                if (name, number) == (b"recvfrom", errno.EAGAIN):
                    continue  # It says that nothing is there, for which no edge would come.
                for nth in NTH:
                    fault = [name.decode(), errno.errorcode[number], nth]
                    print(json.dumps(fault), flush=True)
                    control.fail_call(call, nth, number)
                    wrong = self.judge(name.decode(), number, self.run())
                    if control.end_failing():
                        yield fault, wrong or self.settle()

    def judge(self, call: str, number: int, raised: BaseException | None) -> str:
        if isinstance(raised, asyncio.TimeoutError):
            return f"it hangs, {self.reported}"
        if raised is not None and not isinstance(raised, (OSError, asyncio.IncompleteReadError)):
            return f"{raised!r}"
        if call in UNNOTICED.get(number, ()) and (raised is not None or self.reported):
            return f"it is noticed: {raised!r}, {self.reported}"
        return ""


def main() -> None:
    forbidden = control.supervise()
    if forbidden:
        raise OSError(forbidden, os.strerror(forbidden))
    for fault, wrong in Faults(sys.argv[1]).inject():
        print(json.dumps([*fault, wrong]), flush=True)
    print(json.dumps("end"))


if __name__ == "__main__":
    main()
