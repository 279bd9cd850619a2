"""Random calls of transports, valid and closed, from all their callbacks and from timers.

A failure names its seed; OMNIPOLL_SEED=N repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import aio
import pytest
from conftest import LONG

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)

PAIRS = 6
ACTIONS = 400  # at most in a program
PROGRAMS = 12
PATTERN = bytes(range(251)) * 1000  # Of a length that no buffer is a multiple of.


class Mistake(Exception):
    """What callbacks raise now and then."""


class Program:
    """Connections whose protocols do what comes to mind."""

    def __init__(self, loop: EventLoop, seed: int) -> None:
        self.loop, self.chance, self.actions = loop, random.Random(seed), 0
        self.ends: list[End] = []
        self.wrong: list[str] = []
        self.changed = aio.run(loop, aio.new_event())
        loop.set_exception_handler(self.report)

    def report(self, _: object, context: dict[str, Any]) -> None:
        if type(context.get("exception")) is not Mistake:
            self.wrong.append(f"reported: {context}")

    async def run(self) -> None:
        for _ in range(PAIRS):
            sockets = socket.socketpair()
            one, other = End(self), End(self)
            one.peer, other.peer = other, one
            for end, sock in zip((one, other), sockets):
                sock.setblocking(False)
                await self.loop.create_connection(end.protocol, sock=sock)
        for _ in range(ACTIONS // 4):
            self.loop.call_later(self.chance.uniform(0, 0.01), self.act)
        self.loop.call_later(0.03, self.end)
        while not all(end.losses for end in self.ends):
            self.changed.clear()
            await self.changed.wait()
        await asyncio.sleep(0.001)

    def end(self) -> None:
        self.actions = ACTIONS
        for end in self.ends:
            end.transport.abort()

    def act(self) -> None:
        """One action, on any of the ends."""
        if self.actions < ACTIONS:
            self.actions += 1
            end = self.chance.choice(self.ends)
            if end.made:
                self.chance.choice(end.ACTS)(end)

    def acts(self) -> None:
        """Some actions, in a callback."""
        for _ in range(self.chance.choice((0, 0, 0, 1, 1, 2))):
            self.act()
        if self.actions < ACTIONS and self.chance.random() < 0.01:
            raise Mistake


class End:
    """One end of a connection; its protocol may be replaced."""

    peer: End

    def __init__(self, program: Program) -> None:
        self.program, self.number = program, len(program.ends)
        self.transport: Any = None
        self.made = self.losses = self.ends = self.sent = self.received = self.pauses = 0
        program.ends.append(self)

    def protocol(self) -> asyncio.BaseProtocol:
        return self.program.chance.choice((Streaming, Buffering))(self)

    def expect(self, is_so: bool, words: str) -> None:
        if not is_so:
            self.program.wrong.append(f"end {self.number}: {words}")

    def check(self, data: bytes) -> None:
        self.expect(data == self.pattern(self.received, len(data)), "not what was sent next")
        self.received += len(data)
        self.expect(self.received <= self.peer.sent, "more than was sent")
        self.expect(self.made == 1 and not self.losses and not self.ends, "data before or after its time")

    @staticmethod
    def pattern(start: int, size: int) -> bytes:
        return PATTERN[start % 251 : start % 251 + size]

    # ---- Actions

    def write(self) -> None:
        self.write_some([self.program.chance.choice((1, 100, 5_000, 200_000))])

    def write_lines(self) -> None:
        self.write_some([1, 1_000, 30_000])

    def write_some(self, sizes: list[int]) -> None:
        if self.transport.is_closing() or self.transport._eof:
            return
        start, pieces = self.sent, []
        for size in sizes:
            pieces.append(self.pattern(start, size))
            start += size
        self.sent = start
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)
        self.expect(self.transport.get_write_buffer_size() <= start, "more waits than was written")

    def close(self) -> None:
        if self.program.chance.random() < 0.2:
            self.transport.close()

    def abort(self) -> None:
        if self.program.chance.random() < 0.1:
            self.transport.abort()
            self.expect(self.transport.get_write_buffer_size() == 0, "something waits after an abort")

    def write_eof(self) -> None:
        if self.program.chance.random() < 0.2:
            self.transport.write_eof()

    def replace(self) -> None:
        if not self.losses:
            self.transport.set_protocol(self.protocol())

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def limit(self) -> None:
        self.transport.set_write_buffer_limits(self.program.chance.choice((0, 1_000, 100_000)))

    def look(self) -> None:
        repr(self.transport)
        self.transport.get_extra_info("peername")

    ACTS = (
        write,
        write,
        write,
        write_lines,
        close,
        abort,
        write_eof,
        replace,
        pause,
        resume,
        resume,
        limit,
        look,
    )


class Protocol(asyncio.BaseProtocol):
    """What both kinds have in common."""

    def __init__(self, end: End) -> None:
        self.end, self.acts = end, end.program.acts

    def connection_made(self, transport: Any) -> None:
        self.end.transport = transport
        self.end.made += 1
        self.end.expect(self.end.made == 1, "made again")
        self.acts()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.end.losses += 1
        self.end.expect(self.end.made == 1 and self.end.losses == 1, "lost too often or too early")
        self.end.expect(exc is None or isinstance(exc, (OSError, Mistake)), f"lost by {exc!r}")
        self.end.program.changed.set()
        self.acts()

    def eof_received(self) -> bool:
        self.end.ends += 1
        self.end.expect(not self.end.losses, "ended when it was lost")
        self.acts()
        return self.end.program.chance.random() < 0.5

    def pause_writing(self) -> None:
        self.end.pauses += 1
        self.end.expect(self.end.pauses == 1, "paused again")
        self.acts()

    def resume_writing(self) -> None:
        self.end.pauses -= 1
        self.end.expect(self.end.pauses == 0, "resumed again")
        self.acts()


class Streaming(Protocol, asyncio.Protocol):
    """Is called with what arrives."""

    def data_received(self, data: bytes) -> None:
        self.end.check(data)
        self.acts()


class Buffering(Protocol, asyncio.BufferedProtocol):
    """Has a buffer of its own."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(self.end.program.chance.choice((1, 1000, 100_000)))
        self.acts()
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.end.check(bytes(self.buffer[:nbytes]))
        self.acts()


@pytest.fixture
def seeds() -> Iterator[int]:
    given = os.environ.get("OMNIPOLL_SEED")
    first = int(given) if given else time.time_ns() % 1_000_000
    return iter(range(first, first + (1 if given else PROGRAMS)))


def test_random_calls_keep_the_order_of_a_connection(loop: EventLoop, seeds: Iterator[int]) -> None:
    for seed in seeds:
        print(f"OMNIPOLL_SEED={seed}")
        program = Program(loop, seed)
        loop.run_until_complete(asyncio.wait_for(program.run(), LONG))
        assert program.wrong == []
