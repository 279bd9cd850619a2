"""The asyncio loop's transports, with protocols at one end and real sockets at the other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import struct
from collections.abc import Callable
from typing import Any

import aio
import pytest
from conftest import LONG

from omnipoll.aio import EventLoop

BIG = 4_000_000  # More than a socket takes at once.


loop = pytest.fixture(aio.open_loop)


class Recorder(asyncio.Protocol):
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.data = b""
        self.changed = asyncio.Event()
        self.keeps_open = False
        self.transport: Any = None

    def note(self, call: Any) -> None:
        self.calls.append(call)
        self.changed.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data
        self.changed.set()

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note(("lost", type(exc)))

    async def until(self, condition: Callable[[], Any]) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), LONG)

    async def lost(self) -> Any:
        await self.until(lambda: self.calls and isinstance(self.calls[-1], tuple))
        return self.calls[-1][1]


class Connected:
    """A protocol whose transport is connected with a socket, which doesn't block."""

    def __init__(self, loop: EventLoop, protocol: Recorder, is_tcp: bool = False) -> None:
        self.loop, self.protocol = loop, protocol
        if is_tcp:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.ours = socket.create_connection(server.getsockname())
                self.peer, _ = server.accept()
        else:
            self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.peer.setblocking(False)
        self.reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.reports.append(context))

    async def __aenter__(self) -> Connected:
        self.transport, _ = await self.loop.create_connection(lambda: self.protocol, sock=self.ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.abort()
        await self.protocol.lost()
        self.peer.close()
        self.loop.set_exception_handler(None)

    async def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = await asyncio.wait_for(self.loop.sock_recv(self.peer, 65536), LONG)
            if not chunk:
                break
            data += chunk
        return bytes(data)


# ---- Reading ------------------------------------------------------------------------------------------


def test_what_arrives_is_received_until_the_end(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            data = bytes(range(256)) * 8000
            await loop.sock_sendall(it.peer, data)
            await it.protocol.until(lambda: len(it.protocol.data) == len(data))
            assert it.protocol.data == data
            it.peer.shutdown(socket.SHUT_WR)
            assert await it.protocol.lost() is type(None)
            assert it.protocol.calls == ["made", "eof", ("lost", type(None))]

    aio.run(loop, main())


def test_a_transport_is_a_transport_of_asyncio(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder(), is_tcp=True) as it:
            transport = it.transport
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_protocol() is it.protocol
            assert transport.get_extra_info("peername") == it.peer.getsockname()
            assert transport.get_extra_info("sockname") == it.peer.getpeername()
            sock = transport.get_extra_info("socket")
            assert sock.fileno() == it.ours.fileno() == transport._sock.fileno()  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 3) == 3
            assert transport.can_write_eof()
            assert f"fd={it.ours.fileno()} read=polling write=<idle, bufsize=0>" in repr(transport)
        assert "closed" in repr(transport)
        assert transport.get_extra_info("peername") == it.transport.get_extra_info("peername")

    aio.run(loop, main())


def test_a_half_closed_connection_can_be_written_to(loop: EventLoop) -> None:
    async def main() -> None:
        protocol = Recorder()
        protocol.keeps_open = True
        async with Connected(loop, protocol) as it:
            it.peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.calls)
            assert not it.transport.is_closing()
            it.transport.write(b"after")
            assert await it.receive(5) == b"after"
            it.transport.close()
            assert await protocol.lost() is type(None)
            assert protocol.calls.count("eof") == 1

    aio.run(loop, main())


def test_nothing_is_received_while_reading_is_paused(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.pause_reading()
            it.transport.pause_reading()
            assert not it.transport.is_reading()
            it.peer.send(b"early")
            other = Recorder()
            async with Connected(loop, other) as second:  # The loop polls for it.
                second.peer.send(b"x")
                await other.until(lambda: other.data)
            assert it.protocol.data == b""
            it.transport.resume_reading()
            it.transport.resume_reading()
            assert it.transport.is_reading()
            await it.protocol.until(lambda: it.protocol.data == b"early")

    aio.run(loop, main())


def test_a_new_protocol_gets_what_arrives_next(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.peer.send(b"one")
            await it.protocol.until(lambda: it.protocol.data == b"one")
            it.protocol, before = Recorder(), it.protocol
            it.transport.set_protocol(it.protocol)
            assert it.transport.get_protocol() is it.protocol
            it.peer.send(b"two")
            await it.protocol.until(lambda: it.protocol.data == b"two")
            buffered = Buffered()
            it.transport.set_protocol(buffered)
            it.protocol = buffered
            it.peer.send(b"three")
            await buffered.until(lambda: buffered.data == b"three")
        assert before.data == b"one"

    aio.run(loop, main())


def test_a_protocol_is_called_in_the_context_it_was_made_in(loop: EventLoop) -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    class Noting(Recorder):
        def connection_made(self, transport: Any) -> None:
            seen.append(variable.get())
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())
            super().data_received(data)

    async def main() -> None:
        variable.set("inside")
        async with Connected(loop, Noting()) as it:
            variable.set("later")
            it.peer.send(b"x")
            await it.protocol.until(lambda: it.protocol.data)

    aio.run(loop, main())
    assert seen == ["inside", "inside"]


# ---- Buffered protocols -------------------------------------------------------------------------------


class Buffered(Recorder, asyncio.BufferedProtocol):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.changed.set()


def test_a_protocol_receives_into_its_own_buffer(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Buffered()) as it:
            it.peer.send(b"seven b")
            await it.protocol.until(lambda: it.protocol.data == b"seven b")
            it.protocol.buffer = memoryview(bytearray(100))[50:]  # type: ignore[attr-defined]
            it.peer.send(b"ytes")
            it.peer.shutdown(socket.SHUT_WR)
            assert await it.protocol.lost() is type(None)
            assert it.protocol.data == b"seven bytes"

    aio.run(loop, main())


@pytest.mark.parametrize("answer", [bytearray(), b"constant", None, 7])
def test_a_buffer_that_takes_nothing_ends_the_connection(loop: EventLoop, answer: object) -> None:
    class Wrong(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            return answer

    async def main() -> None:
        async with Connected(loop, Wrong()) as it:
            it.peer.send(b"x")
            error = await it.protocol.lost()
            assert issubclass(error, (RuntimeError, TypeError, BufferError))
            (report,) = it.reports
            assert report["message"] == "Fatal error: protocol.get_buffer() call failed."
            assert type(report["exception"]) is error

    aio.run(loop, main())


def test_a_protocol_may_abort_while_it_is_asked_for_a_buffer(loop: EventLoop) -> None:
    class Aborting(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            self.transport.abort()
            return self.buffer

    async def main() -> None:
        async with Connected(loop, Aborting()) as it:
            it.peer.send(b"x")
            assert await it.protocol.lost() is type(None)
            assert it.protocol.data == b""
            assert it.reports == []

    aio.run(loop, main())


# ---- Writing ------------------------------------------------------------------------------------------


def test_what_is_written_arrives_in_order(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            pieces = [bytes([index % 256]) * (index * 7) for index in range(1000)]
            for piece in pieces[:300]:
                it.transport.write(piece)
            it.transport.writelines(pieces[300:600])
            it.transport.writelines(memoryview(piece) for piece in pieces[600:])
            size = sum(map(len, pieces))
            assert await it.receive(size) == b"".join(pieces)
            assert it.transport.get_write_buffer_size() == 0

    aio.run(loop, main())


def test_what_is_queued_can_be_changed_by_its_owner(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            data = bytearray(b"x" * BIG)
            view = memoryview(bytearray(b"y" * BIG))
            it.transport.write(data)
            it.transport.write(view)
            del data[:]
            view[:] = b"z" * BIG
            assert await it.receive(2 * BIG) == b"x" * BIG + b"y" * BIG

    aio.run(loop, main())


def test_what_waits_is_counted(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.write(b"x" * BIG)
            waiting = it.transport.get_write_buffer_size()
            assert 0 < waiting < BIG
            it.transport.write(b"y" * 10)
            it.transport.writelines([b"z" * 5, b"", b"z"])
            assert it.transport.get_write_buffer_size() == waiting + 16
            assert "write=<polling" in repr(it.transport)
            await it.receive(BIG + 16)
            assert it.transport.get_write_buffer_size() == 0

    aio.run(loop, main())


def test_a_protocol_is_paused_and_resumed(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            assert it.transport.get_write_buffer_limits() == (16384, 65536)
            it.transport.set_write_buffer_limits(high=200_000, low=100_000)
            assert it.transport.get_write_buffer_limits() == (100_000, 200_000)
            it.transport.write(b"x" * BIG)
            it.transport.write(b"x" * BIG)
            assert it.protocol.calls == ["made", "pause"]
            received = await it.receive(2 * BIG)
            await it.protocol.until(lambda: "resume" in it.protocol.calls)
            assert len(received) == 2 * BIG
            assert it.protocol.calls == ["made", "pause", "resume"]

            it.transport.set_write_buffer_limits(low=10)
            assert it.transport.get_write_buffer_limits() == (10, 40)
            it.transport.set_write_buffer_limits(high=0)
            assert it.transport.get_write_buffer_limits() == (0, 0)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\)"):
                it.transport.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(ValueError, match="must be >= 0"):
                it.transport.set_write_buffer_limits(high=-1)

    aio.run(loop, main())


def test_closing_sends_what_waits(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.write(b"x" * BIG)
            it.transport.close()
            it.transport.close()
            assert it.transport.is_closing()
            assert it.protocol.calls[-1] == "pause"
            assert await it.receive(BIG + 1) == b"x" * BIG
            assert await it.protocol.lost() is type(None)

    aio.run(loop, main())


def test_the_end_is_written_after_what_waits(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.write(b"x" * BIG)
            it.transport.write_eof()
            it.transport.write_eof()
            with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
                it.transport.write(b"x")
            with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
                it.transport.writelines([b"x"])
            assert await it.receive(BIG + 1) == b"x" * BIG
            it.peer.send(b"answer")
            await it.protocol.until(lambda: it.protocol.data == b"answer")

    aio.run(loop, main())


def test_an_abort_drops_what_waits(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.write(b"x" * BIG)
            it.transport.abort()
            assert it.protocol.calls[-1] == "pause"  # connection_lost() is called later.
            assert it.transport.get_write_buffer_size() == 0
            assert await it.protocol.lost() is type(None)
            assert len(await it.receive(BIG)) < BIG
            it.transport.write(b"ignored")

    aio.run(loop, main())


@pytest.mark.parametrize("data", ["text", 7, None, [b"x"]])
def test_only_bytes_can_be_written(loop: EventLoop, data: Any) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
                it.transport.write(data)
            it.transport.write(b"")
            it.transport.writelines([])
            assert not it.transport.is_closing()

    aio.run(loop, main())


def test_a_reset_is_reported_to_the_protocol(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder(), is_tcp=True) as it:
            it.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            it.peer.close()
            assert await it.protocol.lost() is ConnectionResetError
            assert it.protocol.calls == ["made", ("lost", ConnectionResetError)]
            assert it.reports == []

    aio.run(loop, main())


def test_a_write_to_a_closed_peer_is_reported_to_the_protocol(loop: EventLoop) -> None:
    async def main() -> None:
        async with Connected(loop, Recorder()) as it:
            it.transport.pause_reading()
            it.peer.close()
            it.transport.write(b"x")
            assert it.transport.is_closing()
            assert await it.protocol.lost() is BrokenPipeError
            assert it.reports == []

    aio.run(loop, main())


# ---- What protocols raise -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["data_received", "eof_received", "get_buffer", "buffer_updated"])
def test_what_a_protocol_raises_is_reported_and_ends_the_connection(loop: EventLoop, method: str) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        protocol = Buffered() if "buffer" in method else Recorder()
        setattr(protocol, method, fail)
        async with Connected(loop, protocol) as it:
            it.peer.send(b"x")
            it.peer.shutdown(socket.SHUT_WR)
            assert await it.protocol.lost() is ZeroDivisionError
            (report,) = it.reports
            assert report["message"] == f"Fatal error: protocol.{method}() call failed."
            assert type(report["exception"]) is ZeroDivisionError
            assert report["transport"] is it.transport
            assert report["protocol"] is it.protocol

    aio.run(loop, main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_what_flow_control_raises_is_reported(loop: EventLoop, method: str) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        protocol = Recorder()
        setattr(protocol, method, fail)
        async with Connected(loop, protocol) as it:
            it.transport.write(b"x" * BIG)
            assert await it.receive(BIG) == b"x" * BIG
            (report,) = it.reports
            assert report["message"] == f"protocol.{method}() failed"
            assert report["transport"] is it.transport
            assert not it.transport.is_closing()

    aio.run(loop, main())


def test_what_connection_lost_raises_is_reported_and_the_socket_closed(loop: EventLoop) -> None:
    class Failing(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main() -> None:
        for waits in (b"", b"x" * BIG):
            async with Connected(loop, Failing()) as it:
                it.transport.write(waits)
                it.transport.close()
                assert await it.receive(BIG + 1) == waits
                await it.protocol.lost()
                await asyncio.sleep(0)
                (report,) = it.reports
                assert "Exception in callback" in report["message"]
                assert it.ours.fileno() == -1

    aio.run(loop, main())


@pytest.mark.parametrize("exit", [SystemExit, KeyboardInterrupt])
def test_an_exit_leaves_the_loop(loop: EventLoop, exit: type[BaseException]) -> None:
    class Exiting(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise exit

    async def connect() -> Connected:
        return await Connected(loop, Exiting()).__aenter__()

    it = aio.run(loop, connect())
    it.peer.send(b"x")
    with pytest.raises(exit):
        loop.run_forever()
    assert it.reports == []
    aio.run(loop, it.__aexit__())


# ---- Life ---------------------------------------------------------------------------------------------


def test_a_transport_that_is_never_closed_warns(loop: EventLoop) -> None:
    async def main() -> Any:
        it = await Connected(loop, Recorder()).__aenter__()
        it.transport.pause_reading()
        loop.set_exception_handler(None)
        return it.peer

    with pytest.warns(ResourceWarning, match="unclosed transport <StreamTransport fd="):
        peer = aio.run(loop, main())
        gc.collect()
    with peer:
        peer.settimeout(LONG)
        assert peer.recv(1) == b""  # It is closed all the same.


def test_a_closed_transport_is_collected(loop: EventLoop) -> None:
    freed = []

    class Noting(Recorder):
        def __del__(self) -> None:
            freed.append(True)

    async def main() -> None:
        async with Connected(loop, Noting()) as it:
            it.transport.write(b"x" * BIG)

    aio.run(loop, main())
    gc.collect()
    assert freed == [True]


def test_a_file_is_sent_by_sendfile(loop: EventLoop, tmp_path: Any) -> None:
    data = bytes(range(256)) * 10_000
    path = tmp_path / "file"
    path.write_bytes(data)

    async def main() -> None:
        async with Connected(loop, Recorder(), is_tcp=True) as it:
            it.transport.write(b"head")
            with path.open("rb") as file:
                sending = asyncio.ensure_future(loop.sendfile(it.transport, file))
                received = await it.receive(4 + len(data))
                assert await sending == len(data)
            assert received == b"head" + data
            it.transport.write(b"tail")
            assert await it.receive(4) == b"tail"
            it.peer.send(b"x")
            await it.protocol.until(lambda: it.protocol.data == b"x")

    aio.run(loop, main())
