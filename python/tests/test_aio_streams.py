"""Streams on the asyncio loop: whatever is done with them comes out as it does on asyncio's own loop."""

from __future__ import annotations

import array
import asyncio
import fcntl
import gc
import inspect
import random
import socket
import sys
import termios
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aio
import pytest
from conftest import LONG

from omnipoll.aio import EventLoop, streams

SCRIPTS = 120
TURNS = 4  # In so many turns of the loop all that can go on has gone on.
BIG = 4_000_000  # More than a socket takes at once.
EOF, RESET, FAIL, CANCEL = "eof", "reset", "fail", "cancel"

loop = pytest.fixture(aio.open_loop)
Transcript = list[Any]


def outcome(call: Callable[[], Any]) -> Any:
    """What it returns, or what is to be seen of what it raises."""
    try:
        return call()
    except BaseException as raised:
        details = {name: getattr(raised, name, None) for name in ("partial", "expected", "consumed", "value")}
        return type(raised), str(raised), details, type(raised.__context__)


async def settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


class Stream:
    """A connection as a server has it, whose other end is a plain socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended = ""

    async def open(self, limit: int = 2**16) -> Stream:
        loop = asyncio.get_running_loop()
        self.sock, self.peer = socket.socketpair()
        self.peer.settimeout(LONG)
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, self.connected, loop=loop)
        await loop.connect_accepted_socket(lambda: protocol, self.sock)
        return self

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def is_received(self) -> bool:
        """Whether the loop has taken all that was sent, and the end, or has stopped to take anything."""
        reader: Any = self.reader
        if reader._paused or self.writer.is_closing():
            return True
        if self.ended:
            return self.ended is EOF and bool(reader._eof)
        waiting = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, waiting)
        return waiting[0] == 0

    def end(self, how: str) -> None:
        self.ended = how
        if how is RESET:
            self.sock.send(b"unread")
            self.peer.close()
        else:
            self.peer.shutdown(socket.SHUT_WR)

    @property
    def state(self) -> dict[str, Any]:
        reader: Any = self.reader
        return {
            "buffer": bytes(reader._buffer),
            "eof": reader.at_eof(),
            "paused": reader._paused,
            "waits": reader._waiter is not None,
            "exception": reader.exception(),
        }

    def close(self) -> None:
        self.writer.close()
        self.peer.close()


# ---- Sequences of calls and of what arrives --------------------------------------------------------------


def scripts() -> Iterator[tuple[int, list[Any]]]:
    """Limits, and in random order what is sent and what is called, the same in each run."""
    source = random.Random(2026)
    separators: list[Any] = [b"\n", b"ta", b"\n\n", b"gamma\n", b"", bytearray(b"\n")]
    if sys.version_info >= (3, 13):
        separators.append((b"a", b"\n", b"mma"))
    calls: list[Callable[[], tuple[str, tuple[Any, ...]]]] = [
        lambda: ("read", (source.choice([0, 1, 3, 7, 100, -1, True, 2**70, None, 2.5]),)),
        lambda: ("read", ()),
        lambda: ("readexactly", (source.choice([0, 1, 4, 9, 40, -1, None]),)),
        lambda: ("readline", ()),
        lambda: ("readuntil", (source.choice(separators),)),
        lambda: ("readuntil", ()),
        lambda: ("__anext__", ()),
    ]
    text = b"alpha\nbeta\n\ngamma\ndelta alpha beta"
    for _ in range(SCRIPTS):
        steps: list[Any] = []
        while len(steps) < 14:
            kind = source.random()
            if kind < 0.5:
                start = source.randrange(len(text))
                steps.append(text[start : start + source.choice([1, 2, 5, 12, 40])])
            elif kind < 0.92:
                steps.append(source.choice(calls)())
            else:
                steps.append(source.choice([CANCEL, CANCEL, CANCEL, EOF, FAIL, RESET]))
        yield source.choice([3, 8, 20, 2**16]), [*steps, EOF]


async def play(limit: int, steps: list[Any]) -> Transcript:
    stream = await Stream().open(limit)
    tasks: list[asyncio.Future[Any]] = []
    transcript: Transcript = []
    for step in steps:
        if isinstance(step, bytes):
            if not stream.ended:
                stream.peer.sendall(step)
        elif step is CANCEL:
            for task in [task for task in tasks if not task.done()][:1]:
                task.cancel()
        elif step is FAIL:
            stream.reader.set_exception(ZeroDivisionError("the reader failed"))
        elif step in (EOF, RESET):
            if not stream.ended:
                stream.end(step)
        else:
            name, arguments = step
            tasks.append(asyncio.ensure_future(getattr(stream.reader, name)(*arguments)))
        for _ in range(3):  # A call that goes on may have the loop read on.
            await until(stream.is_received)
            await settle()
        state = stream.state
        transcript.append((step, state.pop("buffer"), repr(state), [task.done() for task in tasks]))
    for task in tasks:
        if not task.done():
            task.cancel()
    await settle()
    transcript += [outcome(task.result) for task in tasks]
    stream.close()
    await settle()
    return transcript


def test_random_sequences_come_out_as_on_the_own_loop_of_asyncio(
    loop: EventLoop, reference: asyncio.AbstractEventLoop
) -> None:
    for limit, steps in scripts():
        expected = reference.run_until_complete(asyncio.wait_for(play(limit, steps), LONG))
        assert aio.run(loop, play(limit, steps)) == expected, (limit, steps)


@pytest.fixture
def reference() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


# ---- What a coroutine is -----------------------------------------------------------------------------------


class Notes(Transcript):
    def take(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self.append(words(outcome(lambda: call(*arguments, **named))))


THROWN: tuple[tuple[Any, ...], ...] = (
    (KeyError("key"),),
    (KeyError,),
    (KeyError, "key"),
    (KeyError, KeyError("key"), None),
    (asyncio.IncompleteReadError(b"part", 9),),
    (asyncio.LimitOverrunError("long", 0),),
    (GeneratorExit,),
)


async def handle_by_hand() -> Notes:
    """Do with the coroutines what only event loops and debuggers do."""
    stream, notes = await Stream().open(), Notes()
    reader: Any = stream.reader
    writer: Any = stream.writer
    for call in (reader.read, reader.readline, reader.readuntil, writer.drain):
        fresh = call()
        notes.take(fresh.send, 1)
        notes.take(fresh.throw, KeyError("key"))
        notes.take(fresh.send, None)
        notes.take(fresh.close)
        closed = call()
        notes.take(closed.close)
        notes.take(closed.throw, KeyError)
    for thrown in THROWN:
        waiting = reader.readline()
        notes.take(asyncio.isfuture, waiting.send(None))
        if sys.version_info >= (3, 11):  # Before, it looks at the frame.
            notes.take(inspect.getcoroutinestate, waiting)
        notes.append(waiting.cr_await is not None)
        notes.take(awaited_by_another, waiting)
        notes.take(waiting.throw, *thrown)
        notes.take(waiting.send, None)
        notes.append(stream.state)
    suspended = reader.read(1)
    suspended.send(None)
    second = reader.read(1)
    notes.take(second.send, None)
    notes.take(suspended.close)
    for wrong in (lambda: reader.read(1, 2), reader.readexactly, lambda: reader.read(size=1)):
        with pytest.raises(TypeError):
            wrong()
    for made in (reader.read(n=1), reader.readuntil(separator=b"x"), writer.drain()):
        notes += [made.__name__, made.__qualname__]
        notes += [inspect.iscoroutine(made), asyncio.iscoroutine(made), inspect.isawaitable(made)]
        made.close()
    stream.close()
    await settle()
    return notes


def awaited_by_another(coroutine: Any) -> Any:
    async def other() -> Any:
        return await coroutine

    return other().send(None)


def words(entry: Any) -> Any:
    """Without the class's name, which is before the method's in the newest versions only."""
    if isinstance(entry, tuple) and len(entry) == 4:
        return (entry[0], entry[1].replace("StreamReader.", "").replace("StreamWriter.", ""), *entry[2:])
    return entry


@pytest.mark.filterwarnings("ignore:the .type, exc, tb. signature")
def test_coroutines_handled_by_hand_do_as_those_of_python(
    loop: EventLoop, reference: asyncio.AbstractEventLoop
) -> None:
    expected = reference.run_until_complete(handle_by_hand())
    assert aio.run(loop, handle_by_hand()) == expected


def test_one_that_is_never_awaited_is_warned_of(loop: EventLoop) -> None:
    async def main() -> None:
        stream = await Stream().open()
        with pytest.warns(RuntimeWarning, match="coroutine 'StreamReader.read' was never awaited"):
            _ = stream.reader.read(1)
            del _
        with pytest.warns(RuntimeWarning, match="coroutine 'StreamWriter.drain' was never awaited"):
            _ = stream.writer.drain()
            del _
        stream.close()

    aio.run(loop, main())


def test_each_way_to_wait_takes_them(loop: EventLoop) -> None:
    async def main() -> None:
        stream = await Stream().open()
        reader, writer, peer = stream.reader, stream.writer, stream.peer
        assert type(reader) is streams.StreamReader
        assert type(writer) is streams.StreamWriter
        unused: Any = reader.read(1)
        assert (unused.cr_frame, unused.cr_code, unused.cr_origin) == (None, None, None)
        unused.close()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(10), 0.01)
        shielded = asyncio.ensure_future(reader.readexactly(3))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(shielded), 0.01)
        peer.sendall(b"abcd\nef\ngh")
        assert await shielded == b"abc"
        line, drained = await asyncio.gather(reader.readline(), writer.drain())
        assert (line, drained) == (b"d\n", None)
        peer.shutdown(socket.SHUT_WR)
        assert [line async for line in reader] == [b"ef\n", b"gh"]
        done, _ = await asyncio.wait([asyncio.create_task(reader.read())])
        assert done.pop().result() == b""
        stream.close()
        await writer.wait_closed()

    aio.run(loop, main())


# ---- Writers -----------------------------------------------------------------------------------------------


async def write_and_drain() -> Notes:
    stream, notes = await Stream().open(), Notes()
    writer: Any = stream.writer
    notes.take(writer.write, "text")
    notes.take(writer.write, data=b"")
    writer.write(b"x" * BIG)
    drains = [asyncio.ensure_future(writer.drain())]
    if sys.version_info >= (3, 10):  # Before, only one can wait.
        drains.append(asyncio.ensure_future(writer.drain()))
    await settle()
    notes += [drain.done() for drain in drains]
    drains[-1].cancel()
    await settle()
    notes.take(drains[-1].cancelled)
    received = 0
    while received < BIG:
        received += len(await asyncio.get_running_loop().run_in_executor(None, stream.peer.recv, BIG))
    if len(drains) > 1:
        await drains[0]
        notes.take(drains[0].result)

    stream.reader.set_exception(ZeroDivisionError("the reader failed"))
    failed = asyncio.ensure_future(writer.drain())
    await settle()
    notes.take(failed.result)
    stream.close()
    await settle()

    stream = await Stream().open()
    stream.writer.close()
    lost = asyncio.ensure_future(stream.writer.drain())
    await settle()
    notes.take(lost.result)
    stream.close()

    stream = await Stream().open()
    stream.writer.write(b"x" * BIG)
    aborted = asyncio.ensure_future(stream.writer.drain())
    await settle()
    stream.writer.transport.abort()
    await settle()
    notes.take(aborted.result)
    stream.close()
    await settle()
    return notes


def test_writers_wait_as_on_the_own_loop_of_asyncio(
    loop: EventLoop, reference: asyncio.AbstractEventLoop
) -> None:
    expected = reference.run_until_complete(asyncio.wait_for(write_and_drain(), LONG))
    assert aio.run(loop, write_and_drain()) == expected


# ---- What is left alone, and what is collected -------------------------------------------------------------


class OwnReader(asyncio.StreamReader):
    pass


class OwnProtocol(asyncio.StreamReaderProtocol):
    pass


def test_classes_of_a_program_and_debug_mode_are_left_alone(loop: EventLoop) -> None:
    async def made(reader_class: Any, protocol_class: Any) -> Any:
        ours, peer = socket.socketpair()
        reader = reader_class(loop=loop)
        protocol = protocol_class(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        peer.sendall(b"data")
        assert await reader.read(10) == b"data"
        transport.close()
        peer.close()
        await settle()
        return type(reader)

    async def main() -> None:
        standard = (asyncio.StreamReader, asyncio.StreamReaderProtocol)
        assert await made(*standard) is streams.StreamReader
        assert await made(OwnReader, standard[1]) is OwnReader
        assert await made(standard[0], OwnProtocol) is asyncio.StreamReader
        loop.set_debug(True)
        assert await made(*standard) is asyncio.StreamReader
        loop.set_debug(False)

    aio.run(loop, main())


def test_an_overridden_data_received_is_called(loop: EventLoop) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        reader = asyncio.StreamReader(loop=loop)
        protocol: Any = asyncio.StreamReaderProtocol(reader, loop=loop)
        received = loop.create_future()
        protocol.data_received = received.set_result
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        peer.sendall(b"data")
        assert await received == b"data"
        transport.close()
        peer.close()
        await settle()

    aio.run(loop, main())


@pytest.mark.filterwarnings("ignore:.*was never awaited", "ignore:unclosed", "ignore:loop is closed")
def test_streams_that_nothing_refers_to_are_collected(loop: EventLoop) -> None:
    async def wait_in(stream: Any) -> None:
        stream.waiting = stream.reader.readexactly(10)
        stream.waiting.send(None)
        stream.drain = stream.writer.drain()

    async def main() -> list[weakref.ref[Any]]:
        stream: Any = await Stream().open()
        await wait_in(stream)
        # Rings through each of the coroutines.
        stream.reader.ring, stream.writer.ring = stream.waiting, stream.drain
        references = [weakref.ref(thing) for thing in (stream.reader, stream.writer, stream.waiting)]
        stream.close()
        await settle()
        return references

    references = aio.run(loop, main())
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


def test_what_arrives_for_a_reader_that_is_gone_is_dropped(loop: EventLoop) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        gone = weakref.ref(reader)
        del reader
        writer._reader = None  # type: ignore[attr-defined]
        assert gone() is None
        peer.sendall(b"data")
        peer.shutdown(socket.SHUT_WR)
        writer.write(b"answer")
        await writer.drain()
        assert peer.recv(10) == b"answer"
        writer.close()
        peer.close()
        await writer.wait_closed()

    aio.run(loop, main())


def test_a_stream_of_many_lines_is_paused_and_resumed(loop: EventLoop) -> None:
    lines = 20_000

    async def send(peer: socket.socket) -> None:
        data = b"".join(b"%d\n" % number for number in range(lines))
        await asyncio.get_running_loop().run_in_executor(None, peer.sendall, data)
        peer.shutdown(socket.SHUT_WR)

    async def main() -> None:
        stream = await Stream().open(limit=1000)
        sending: Awaitable[None] = asyncio.ensure_future(send(stream.peer))
        received = [int(line) async for line in stream.reader]
        assert received == list(range(lines))
        await sending
        stream.close()
        await settle()

    aio.run(loop, main())
