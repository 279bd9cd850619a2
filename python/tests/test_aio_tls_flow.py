"""TLS on the asyncio loop: what is paused, upgraded, ended, and collected."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio
import pytest
import tls
from conftest import LONG
from test_aio_transports import Recorder
from tls import MODERN, Client, Echo, Peer, ask, connect, end, receive, serve

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)
certificate = pytest.fixture(scope="module")(tls.certificate)
serving = pytest.fixture(tls.serving)
asking = pytest.fixture(tls.asking)


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
