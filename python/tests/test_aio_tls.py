"""TLS on the asyncio loop, with plain sockets of the ssl module at the other end, and with its own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aio
import pytest
from conftest import LONG
from test_aio_transports import Recorder

from omnipoll.aio import EventLoop

SIZES = (1, 1000, 16384, 65537, 1_000_000)
CLOSE_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER's: the peer gets a reset.
MODERN = sys.version_info >= (3, 11)  # The older protocol has no time limit for the end.

loop = pytest.fixture(aio.open_loop)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    what = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=DNS:localhost")
    command = ("openssl", "req", *what.split(), *names, "-keyout", str(key), "-out", str(cert))
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def asking(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


class Client(Recorder):
    async def received(self, size: int) -> None:
        await self.until(lambda: len(self.data) >= size)


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray(5000)

    def get_buffer(self, sizehint: int) -> bytearray:
        # The standard library loses what a second record brings into a bytearray.
        return self.buffer if MODERN else memoryview(self.buffer)  # type: ignore[return-value]

    def buffer_updated(self, count: int) -> None:
        self.transport.write(bytes(self.buffer[:count]))


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := sock.recv(min(size - len(data), 1 << 20))):
        data += chunk
    return bytes(data)


class Peer:
    """A listener for one connection of the loop's, whose socket a function has on a thread."""

    def __init__(self, loop: EventLoop, talk: Callable[[socket.socket], Any]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(LONG)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # To be full soon.
        self.address = self.listener.getsockname()
        self.done = loop.run_in_executor(None, self.serve, talk)

    def serve(self, talk: Callable[[socket.socket], Any]) -> Any:
        with self.listener, self.listener.accept()[0] as sock:
            sock.settimeout(LONG)
            return talk(sock)


def end(tls: ssl.SSLSocket) -> None:
    """Ends both directions. The older protocol does not answer the end."""
    with suppress(*() if MODERN else (ssl.SSLEOFError,)):
        tls.unwrap()


async def ask(loop: EventLoop, address: Any, context: ssl.SSLContext, talk: Callable[[Any], Any]) -> Any:
    """Connects a plain TLS socket, which a function has on a thread."""

    def connect() -> Any:
        sock = socket.create_connection(address, timeout=LONG)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            return talk(tls)

    return await loop.run_in_executor(None, connect)


async def serve(loop: EventLoop, factory: Any, context: ssl.SSLContext, **options: Any) -> Any:
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context, **options)
    return server, server.sockets[0].getsockname()


async def connect(
    loop: EventLoop, protocol: Any, address: Any, context: ssl.SSLContext, **options: Any
) -> Any:
    options = {"ssl": context, "server_hostname": "localhost", **options}
    return (await loop.create_connection(lambda: protocol, *address, **options))[0]


def messages() -> list[bytes]:
    return [os.urandom(size) for size in SIZES]


@pytest.mark.parametrize("factory", (Echo, BufferedEcho))
def test_a_server_gives_a_plain_client_what_it_sends(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext, factory: Any
) -> None:
    def talk(tls: Any) -> None:
        for message in messages():
            for start in range(0, len(message), 100_000):  # An echo doesn't read while it can't write.
                part = message[start : start + 100_000]
                tls.sendall(part)
                assert receive(tls, len(part)) == part
        end(tls)

    async def main() -> None:
        server, address = await serve(loop, factory, serving)
        await ask(loop, address, asking, talk)
        server.close()
        await server.wait_closed()

    aio.run(loop, main())


def test_a_client_gets_back_from_a_plain_server_what_it_writes(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    sent = messages()

    def talk(sock: socket.socket) -> None:
        with serving.wrap_socket(sock, server_side=True) as tls:
            for message in sent:
                tls.sendall(receive(tls, len(message)))

    async def main() -> None:
        peer = Peer(loop, talk)
        protocol = Client()
        transport = await connect(loop, protocol, peer.address, asking)
        assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
        assert transport.get_extra_info("sslcontext") is asking
        assert transport.get_extra_info("cipher") and transport.get_extra_info("peercert")
        assert transport.get_extra_info("peername") == peer.address
        for message in sent:
            protocol.data = b""
            half = len(message) // 2
            transport.writelines([message[:half], bytearray(message[half:-1]), memoryview(message)[-1:]])
            await protocol.received(len(message))
            assert protocol.data == message
        await peer.done
        assert await protocol.lost() is type(None)
        assert "eof" in protocol.calls
        with pytest.raises(TypeError, match="expecting a bytes-like instance, got str"):
            transport.write("x")

    aio.run(loop, main())


# ---- Peers that don't keep to it --------------------------------------------------------------------------


def garbage(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    receive(sock, 1 << 20)


def reset(sock: socket.socket) -> None:
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_AT_ONCE)


def silence(sock: socket.socket) -> None:
    receive(sock, 1 << 20)


@pytest.mark.parametrize(
    "talk, error", ((garbage, ssl.SSLError), (reset, ConnectionResetError), (silence, ConnectionAbortedError))
)
def test_a_handshake_fails(loop: EventLoop, asking: ssl.SSLContext, talk: Any, error: Any) -> None:
    async def main() -> None:
        peer = Peer(loop, talk)
        limit = 0.05 if talk is silence else LONG
        with pytest.raises(error):
            await connect(loop, Client(), peer.address, asking, ssl_handshake_timeout=limit)
        await peer.done

    aio.run(loop, main())


def test_a_server_goes_on_after_handshakes_that_fail(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    def fail(address: Any, talk: Any) -> None:
        with socket.create_connection(address, timeout=LONG) as sock:
            try:
                sock.sendall(b"x")
                talk(sock)
            except ConnectionResetError:
                pass  # It has closed with something unread.

    async def main() -> None:
        server, address = await serve(loop, Echo, serving, ssl_handshake_timeout=0.5)
        for talk in (garbage, silence, lambda sock: None):
            await loop.run_in_executor(None, fail, address, talk)

        def talk_well(tls: Any) -> bytes:
            tls.sendall(b"well")
            return receive(tls, 4)

        server.close()
        server, address = await serve(loop, Echo, serving)
        assert await ask(loop, address, asking, talk_well) == b"well"
        server.close()

    loop.set_exception_handler(lambda _, context: None)
    aio.run(loop, main())


@pytest.mark.parametrize("is_reset", (False, True))
def test_a_peer_that_goes_without_a_word_is_seen_to_go(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext, is_reset: bool
) -> None:
    def talk(sock: socket.socket) -> None:
        tls = serving.wrap_socket(sock, server_side=True)
        tls.sendall(b"last")
        tls.recv(1)
        if is_reset:
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_AT_ONCE)
        tls.close()  # Without close_notify.

    async def main() -> None:
        peer = Peer(loop, talk)
        protocol = Client()
        transport = await connect(loop, protocol, peer.address, asking)
        await protocol.until(lambda: protocol.data == b"last")
        transport.write(b"x")
        await peer.done
        assert await protocol.lost() is (ConnectionResetError if is_reset else type(None))
        assert transport.is_closing() or not MODERN
        transport.write(b"nobody hears")

    aio.run(loop, main())


if MODERN:

    def test_a_peer_that_never_ends_is_left(
        loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
    ) -> None:
        def talk(sock: socket.socket) -> None:
            tls = serving.wrap_socket(sock, server_side=True)
            with socket.socket(fileno=tls.detach()) as unheeding:  # close_notify isn't answered.
                unheeding.settimeout(LONG)
                receive(unheeding, 1 << 20)

        async def main() -> None:
            peer = Peer(loop, talk)
            protocol = Client()
            transport = await connect(loop, protocol, peer.address, asking, ssl_shutdown_timeout=0.05)
            transport.close()
            assert await protocol.lost() is TimeoutError
            await peer.done

        aio.run(loop, main())

    def test_tls_is_carried_by_tls(loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext) -> None:
        async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"go")  # What came before would be read by the stream.
            await writer.start_tls(serving)
            while data := await reader.read(100_000):
                writer.write(data)
            writer.close()

        async def main() -> None:
            server = await asyncio.start_server(upgrade, "127.0.0.1", 0, ssl=serving)
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address, ssl=asking, server_hostname="localhost")
            assert await reader.readexactly(2) == b"go"
            await writer.start_tls(asking, server_hostname="localhost")
            for message in messages():
                writer.write(message)
                assert await reader.readexactly(len(message)) == message
            writer.close()
            await writer.wait_closed()
            server.close()

        aio.run(loop, main())


# ---- Flow control -----------------------------------------------------------------------------------------


def test_a_protocol_is_paused_until_its_peer_reads(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    part = bytes(range(250)) * 800
    sent = 0
    may_read = threading.Event()

    def talk(sock: socket.socket) -> bytes:
        with serving.wrap_socket(sock, server_side=True) as tls:
            assert may_read.wait(LONG)
            return receive(tls, 1 << 30)

    async def main() -> None:
        nonlocal sent
        peer = Peer(loop, talk)
        protocol = Client()
        transport = await connect(loop, protocol, peer.address, asking)
        transport.set_write_buffer_limits(high=100_000, low=10_000)
        while "pause" not in protocol.calls:
            transport.write(part)
            sent += 1
        assert transport.get_write_buffer_size() > 10_000
        assert "resume" not in protocol.calls
        may_read.set()
        await protocol.until(lambda: "resume" in protocol.calls)
        transport.close()
        assert await peer.done == part * sent
        assert await protocol.lost() is type(None)

    aio.run(loop, main())


def test_reading_is_paused_and_resumed(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    message = os.urandom(1_000_000)

    class Pausing(Client):
        def data_received(self, data: bytes) -> None:
            assert not is_paused[0] or not MODERN
            is_paused[0] = True
            self.transport.pause_reading()
            loop.call_later(0.001, self.go_on)
            super().data_received(data)

        def go_on(self) -> None:
            is_paused[0] = False
            self.transport.resume_reading()

    is_paused = [False]

    def talk(sock: socket.socket) -> None:
        with serving.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(message)
            end(tls)

    async def main() -> None:
        peer = Peer(loop, talk)
        protocol = Pausing()
        await connect(loop, protocol, peer.address, asking)
        await protocol.received(len(message))
        assert protocol.data == message
        assert await protocol.lost() is type(None)
        await peer.done

    aio.run(loop, main())


# ---- Upgrades, ends, contexts -----------------------------------------------------------------------------


def test_a_connection_is_upgraded(loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext) -> None:
    def talk(sock: socket.socket) -> bytes:
        assert receive(sock, 5) == b"plain"
        with serving.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"secret")
            return receive(tls, 3)

    async def main() -> None:
        peer = Peer(loop, talk)
        plain, protocol = Client(), Client()
        transport, _ = await loop.create_connection(lambda: plain, *peer.address)
        transport.write(b"plain")
        upgrade: Any = loop.start_tls
        upgraded = await upgrade(transport, protocol, asking, server_hostname="localhost")
        assert upgraded is not None
        await protocol.until(lambda: protocol.data == b"secret")
        assert plain.data == b"" and protocol.calls == []
        upgraded.write(b"yes")
        assert await peer.done == b"yes"
        assert await protocol.lost() is type(None)
        with pytest.raises(TypeError, match="sslcontext is expected"):
            await upgrade(transport, protocol, None)

    aio.run(loop, main())


@pytest.mark.parametrize("end", ("close", "abort"))
@pytest.mark.parametrize("where", ("connection_made", "data_received"))
def test_a_callback_ends_its_own_connection(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext, end: str, where: str
) -> None:
    class Ending(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if where == "connection_made":
                self.finish()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.finish()

        def finish(self) -> None:
            self.transport.write(b"bye")
            getattr(self.transport, end)()
            self.transport.write(b"too late")

    def talk(tls: Any) -> bytes:
        try:
            tls.sendall(b"x" * 200_000)
            return receive(tls, 100)
        except OSError:
            return b""

    async def main() -> None:
        protocol = Ending()
        server, address = await serve(loop, lambda: protocol, serving)
        received = await ask(loop, address, asking, talk)
        assert received in ((b"bye", b"") if end == "close" else (b"", b"bye"))
        await protocol.lost()
        assert protocol.calls.count("made") == 1
        server.close()

    aio.run(loop, main())


def test_what_a_protocol_raises_is_reported_and_ends_the_connection(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main() -> None:
        protocol = Failing()
        server, address = await serve(loop, lambda: protocol, serving)
        assert await ask(loop, address, asking, lambda tls: [tls.sendall(b"x"), gone(tls)][1])
        assert await protocol.lost() is ZeroDivisionError
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
        server.close()

    aio.run(loop, main())


def gone(tls: Any) -> bool:
    try:
        return not tls.recv(1)
    except OSError:
        return True


def test_contexts_do_all_that_they_do(
    loop: EventLoop, certificate: tuple[Path, Path], serving: ssl.SSLContext, tmp_path: Path
) -> None:
    serving.load_verify_locations(certificate[0])
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.maximum_version = ssl.TLSVersion.TLSv1_2
    names: list[Any] = []
    serving.sni_callback = lambda ssl_object, name, context: names.append(name)
    asking = ssl.create_default_context(cafile=str(certificate[0]))
    asking.load_cert_chain(*certificate)
    asking.keylog_filename = str(tmp_path / "keys")

    def talk(session: Any) -> Callable[[socket.socket], Any]:
        def run(sock: socket.socket) -> Any:
            tls = asking.wrap_socket(sock, server_hostname="localhost", session=session)
            with tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
                return tls.session_reused, tls.session

        return run

    async def main() -> None:
        protocol = Echo()
        server, address = await serve(loop, lambda: protocol, serving)

        def connect(session: Any) -> Any:
            with socket.create_connection(address, timeout=LONG) as sock:
                return talk(session)(sock)

        is_reused, session = await loop.run_in_executor(None, connect, None)
        assert not is_reused
        peer = protocol.transport.get_extra_info("peercert")
        assert peer["subject"] == ((("commonName", "localhost"),),)
        assert (await loop.run_in_executor(None, connect, session))[0]
        assert names == ["localhost"] * len(names) and names
        assert "CLIENT_RANDOM" in (tmp_path / "keys").read_text()
        server.close()

    aio.run(loop, main())


# ---- Memory -----------------------------------------------------------------------------------------------


def test_a_connection_has_no_buffer_of_its_own(serving: ssl.SSLContext, asking: ssl.SSLContext) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def main(loop: EventLoop, count: int) -> float:
        server, address = await serve(loop, Echo, serving)
        transports = [await connect(loop, Client(), address, asking) for _ in range(10)]
        before = resident()
        for _ in range(count):
            transports.append(await connect(loop, Client(), address, asking))
        cost = (resident() - before) / count / 2
        for transport in transports:
            transport.abort()
        server.close()
        return cost

    ours = EventLoop("epoll")
    cost = aio.run(ours, main(ours, 40))
    ours.close()
    print(f"{cost / 1024:.0f} KiB for a connection")
    if MODERN:
        assert cost < 200 * 1024  # The standard library's buffer alone has 256 KiB.


def test_what_a_connection_was_is_collected(
    loop: EventLoop, serving: ssl.SSLContext, asking: ssl.SSLContext
) -> None:
    async def main() -> list[Any]:
        server, address = await serve(loop, Echo, serving)
        protocol = Client()
        transport = await connect(loop, protocol, address, asking)
        kept = [weakref.ref(protocol), weakref.ref(transport._ssl_protocol)]
        transport.protocol = protocol  # A cycle.
        transport.close()
        await protocol.lost()
        server.close()
        return kept

    kept = aio.run(loop, main())
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert [reference() for reference in kept] == [None, None]
