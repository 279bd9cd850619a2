"""What the tests of the asyncio loop share: loops that are closed in the end, and a program."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from conftest import LONG

import omnipoll
from omnipoll.aio import EventLoop

T = TypeVar("T")


def open_loop(engine: str) -> Iterator[EventLoop]:
    """What the fixture `loop` of each file is made of."""
    loop = omnipoll.new_event_loop(engine)
    yield loop
    if not loop.is_closed():
        loop.close()


def run(loop: EventLoop, main: Coroutine[Any, Any, T]) -> T:
    return loop.run_until_complete(asyncio.wait_for(main, LONG))


async def new_event() -> asyncio.Event:
    """Makes one in the running loop, to which it belongs before Python 3.10."""
    return asyncio.Event()


async def converse(clients: int) -> list[int]:
    """Has that many clients talk to a server, by streams; what each returns."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(address: tuple[str, int], name: int) -> int:
        reader, writer = await asyncio.open_connection(*address)
        message = b"%5d" % name * 20000  # More than a socket's buffer holds.
        for _ in range(3):
            writer.write(message)
            assert await reader.readexactly(len(message)) == message
        writer.close()
        await writer.wait_closed()
        return name

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    names = await asyncio.gather(*(talk(address, name) for name in range(clients)))
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.0005)
    return names
