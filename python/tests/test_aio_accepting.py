"""The asyncio loop's servers: how it accepts, with real clients."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import resource
import socket
from asyncio import constants
from typing import Any

import aio
import pytest

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)


class Greeting(asyncio.Protocol):
    """Sends who it speaks to, and closes."""

    def connection_made(self, transport: Any) -> None:
        transport.write(repr(transport.get_extra_info("peername")).encode())
        transport.close()


async def read(address: Any) -> bytes:
    if isinstance(address, (str, bytes)):
        reader, writer = await asyncio.open_unix_connection(address)  # type: ignore[arg-type]
    else:
        reader, writer = await asyncio.open_connection(*address[:2])
    try:
        return await reader.read()
    finally:
        writer.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_many_clients_are_accepted_by_their_addresses(loop: EventLoop) -> None:
    async def main() -> None:
        for host in ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]:
            server = await loop.create_server(Greeting, host, 0)
            address = server.sockets[0].getsockname()
            clients = []
            for _ in range(50):  # All of them wait before one is accepted.
                client = socket.create_connection(address[:2])
                client.setblocking(False)
                clients.append(client)
            for client in clients:
                assert await loop.sock_recv(client, 100) == repr(client.getsockname()).encode()
                assert await loop.sock_recv(client, 100) == b""
                client.close()
            server.close()
            await server.wait_closed()

    aio.run(loop, main())


@pytest.mark.parametrize("name", ["socket", "\0abstract"])
def test_clients_of_unix_sockets_are_accepted(loop: EventLoop, tmp_path: Any, name: str) -> None:
    path = name + str(os.getpid()) if name[0] == "\0" else str(tmp_path / name)

    async def main() -> None:
        server = await loop.create_unix_server(Greeting, path)
        assert await read(path) == b"''"
        for own in (str(tmp_path / "client"), f"\0client of {path}"):
            with socket.socket(socket.AF_UNIX) as client:
                client.bind(own)
                client.setblocking(False)
                await loop.sock_connect(client, path)
                assert await loop.sock_recv(client, 1000) == repr(client.getsockname()).encode()
        server.close()
        await server.wait_closed()

    aio.run(loop, main())


def test_each_connection_has_a_context_of_its_own(loop: EventLoop) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    class Counting(Greeting):
        def connection_made(self, transport: Any) -> None:
            seen.append(variable.get())
            variable.set(variable.get() + 1)
            super().connection_made(transport)

    async def main() -> None:
        variable.set(10)
        server = await loop.create_server(Counting, "127.0.0.1", 0)
        variable.set(20)
        for _ in range(3):
            await read(server.sockets[0].getsockname())
        server.close()

    aio.run(loop, main())
    assert seen == [10, 10, 10]


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_a_server_may_be_closed_while_it_accepts(loop: EventLoop) -> None:
    async def main() -> None:
        def make() -> Greeting:
            server.close()
            return Greeting()

        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        server = await loop.create_server(make, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(2)]
        clients[0].setblocking(False)
        clients[1].setblocking(False)
        assert await loop.sock_recv(clients[0], 100) == b""  # A closed server can't have it.
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(clients[1], 100)
        with pytest.raises(ConnectionRefusedError):
            await read(address)
        for client in clients:
            client.close()
        assert reports == []

    aio.run(loop, main())


@pytest.mark.parametrize("is_debug", [False, True])
def test_a_connection_without_a_protocol_is_closed(loop: EventLoop, is_debug: bool) -> None:
    reports: list[dict[str, Any]] = []

    def make() -> Greeting:
        if not makes:
            makes.append(True)
            raise ZeroDivisionError
        return Greeting()

    makes: list[bool] = []

    async def main() -> None:
        loop.set_debug(is_debug)
        loop.set_exception_handler(lambda _, context: reports.append(context))
        server = await loop.create_server(make, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        assert await read(address) == b""
        assert await read(address) != b""
        server.close()

    aio.run(loop, main())
    assert [report["message"] for report in reports] == [
        "Error on transport creation for incoming connection"
    ] * is_debug


def test_a_connection_whose_beginning_fails_is_reported(loop: EventLoop) -> None:
    class Failing(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            raise ZeroDivisionError

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)
            self.transport.close()

    async def main() -> None:
        server = await loop.create_server(Failing, "127.0.0.1", 0)
        reported = loop.create_future()
        loop.set_exception_handler(lambda _, context: reported.set_result(context))
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            context = await reported
            assert type(context["exception"]) is ZeroDivisionError
            assert "connection_made" in context["message"]
            assert isinstance(context["handle"], asyncio.Handle)
            # It is read all the same.
            await loop.sock_sendall(client, b"data")
            assert await loop.sock_recv(client, 100) == b"data"
        server.close()

    aio.run(loop, main())


def test_what_a_factory_schedules_is_called_before_its_connection_is_made(loop: EventLoop) -> None:
    called: list[str] = []

    class Noting(Greeting):
        def __init__(self) -> None:
            loop.call_soon(called.append, "scheduled")

        def connection_made(self, transport: Any) -> None:
            called.append("made")
            super().connection_made(transport)

    async def main() -> None:
        server = await loop.create_server(Noting, "127.0.0.1", 0)
        await read(server.sockets[0].getsockname())
        server.close()

    aio.run(loop, main())
    assert called == ["scheduled", "made"]


def test_an_accepted_connection_says_what_it_is_while_open_and_afterwards(loop: EventLoop) -> None:
    class Asking(asyncio.Protocol):
        def __init__(self) -> None:
            kept.append(self)
            self.ended = loop.create_future()

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.asked = [transport.get_extra_info(name) for name in asks]

        def connection_lost(self, exc: Exception | None) -> None:
            self.ended.set_result(None)

    kept: list[Asking] = []
    names = ("peername", "sockname", "socket")
    asks: tuple[str, ...] = ()

    async def main() -> None:
        nonlocal asks
        server = await loop.create_server(Asking, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for asks in (names, ()):
            kept.clear()
            with socket.create_connection(address) as client:
                client.setblocking(False)
                own = client.getsockname()
                while not kept:
                    await asyncio.sleep(0)
                assert kept[0].transport.get_extra_info("nothing", 5) == 5
                client.shutdown(socket.SHUT_WR)
                await kept[0].ended
            if asks:
                assert kept[0].asked[:2] == [own, address]
                assert kept[0].asked[2] is kept[0].transport.get_extra_info("socket")
            assert kept[0].transport.get_extra_info("peername") == own
            assert kept[0].transport.get_extra_info("sockname") == address
            sock = kept[0].transport.get_extra_info("socket")
            assert (sock.fileno(), sock.family, sock.type) == (-1, socket.AF_INET, socket.SOCK_STREAM)
            assert kept[0].transport._sock is None
        server.close()

    aio.run(loop, main())


def test_an_accepted_socket_is_its_transports_and_sends_at_once(loop: EventLoop) -> None:
    class Serving(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.set_result(transport)

    made = loop.create_future()

    async def main() -> None:
        server = await loop.create_server(Serving, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            transport = await made
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert sock.gettimeout() == 0
            assert sock.getpeername() == transport.get_extra_info("peername")
            with pytest.raises(RuntimeError, match="used by transport"):
                loop.add_reader(sock.fileno(), lambda: None)
            with pytest.raises(RuntimeError, match="used by transport"):
                await loop.sock_recv(transport._sock, 1)
            fd = sock.fileno()
            transport.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(OSError):
                os.fstat(fd)
        server.close()

    aio.run(loop, main())


def test_out_of_descriptors_a_server_waits_and_goes_on(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", 0.01)

    async def main() -> None:
        server = await loop.create_server(Greeting, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        client.setblocking(False)
        reported = loop.create_future()

        def report(_: object, context: dict[str, Any]) -> None:
            if not reported.done():
                reported.set_result(context)

        loop.set_exception_handler(report)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Below this number all are open.
        with open(os.devnull) as lowest:
            limit = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
        try:
            context = await reported
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert context["message"] == "socket.accept() out of system resource"
        assert context["exception"].errno == errno.EMFILE
        assert context["socket"].fileno() == server.sockets[0].fileno()
        assert await loop.sock_recv(client, 100) == repr(client.getsockname()).encode()
        client.close()
        server.close()

    aio.run(loop, main())


def test_a_dropped_transport_that_its_warning_keeps_is_counted_out_once(loop: EventLoop) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main() -> None:
        made = loop.create_future()

        class Pausing(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.pause_reading()
                made.set_result(None)

        server = await loop.create_server(Pausing, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            with pytest.warns(ResourceWarning, match="unclosed transport") as warnings:
                await made
                gc.collect()
            transport: Any = warnings[0].source
            transport.abort()
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()

    aio.run(loop, main())
    assert reports == []
