"""The asyncio loop's transports of datagrams, with real sockets at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aio
import pytest
from conftest import LONG

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)


class Recorder(asyncio.DatagramProtocol):
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.changed = asyncio.Event()

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        self.changed.set()

    def connection_made(self, transport: Any) -> None:
        self.note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.note(data, addr)

    def error_received(self, exc: BaseException) -> None:
        self.note("error", type(exc))

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("lost", exc)

    async def until(self, condition: Callable[[], Any]) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), LONG)


def udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(LONG)
    return sock


def has_ipv6() -> bool:
    try:
        udp("::1").close()
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1"] + ["::1"] * has_ipv6()


@pytest.mark.parametrize("host", HOSTS)
def test_datagrams_are_received_and_answered(loop: EventLoop, host: str) -> None:
    async def main() -> None:
        with udp(host) as peer:
            transport, protocol = await loop.create_datagram_endpoint(Recorder, local_addr=(host, 0))
            assert isinstance(transport, asyncio.DatagramTransport)
            assert isinstance(transport, asyncio.Transport)
            address = transport.get_extra_info("sockname")
            assert transport.get_extra_info("peername") is None
            datagrams = [b"", b"x" * 60000, *(b"%d" % number for number in range(40))]
            for data in datagrams:
                peer.sendto(data, address)
            await protocol.until(lambda: len(protocol.calls) == 1 + len(datagrams))
            sender = peer.getsockname()
            assert protocol.calls == [("made",), *((data, sender) for data in datagrams)]
            for each in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), b""):
                transport.sendto(each, sender[:2])
                assert peer.recvfrom(100) == (bytes(each), address)
            transport.sendto(b"by name", ("localhost" if host == "127.0.0.1" else host, *sender[1:]))
            assert peer.recv(100) == b"by name"
            transport.close()
            await protocol.until(lambda: protocol.calls[-1] == ("lost", None))
            assert "closed" in repr(transport)

    aio.run(loop, main())


@pytest.mark.parametrize("host", HOSTS)
def test_a_connected_socket_sends_to_its_peer(loop: EventLoop, host: str) -> None:
    async def main() -> None:
        with udp(host) as peer:
            address = peer.getsockname()[:2]
            transport, protocol = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
            assert transport.get_extra_info("peername") == peer.getsockname()
            transport.sendto(b"one")
            transport.sendto(b"two", peer.getsockname())
            assert [peer.recv(10), peer.recv(10)] == [b"one", b"two"]
            with pytest.raises(ValueError, match="Invalid address: must be None or"):
                transport.sendto(b"three", ("127.0.0.1", 1))
            peer.sendto(b"answer", transport.get_extra_info("sockname"))
            await protocol.until(lambda: protocol.calls[-1] == (b"answer", peer.getsockname()))
            transport.abort()
            await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    aio.run(loop, main())


def test_a_refused_datagram_is_an_error_of_the_protocol(loop: EventLoop) -> None:
    async def main() -> None:
        with udp() as peer:
            address = peer.getsockname()
        transport, protocol = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
        transport.sendto(b"x")
        await protocol.until(lambda: protocol.calls[-1] == ("error", ConnectionRefusedError))
        assert not transport.is_closing()
        transport.sendto(b"x" * 100_000)  # More than a datagram holds.
        await protocol.until(lambda: protocol.calls[-1] == ("error", OSError))
        assert not transport.is_closing()
        transport.close()
        await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    aio.run(loop, main())


def test_what_the_socket_does_not_take_is_queued(loop: EventLoop, tmp_path: Any) -> None:
    path = str(tmp_path / "peer")

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(path)
            peer.setblocking(False)
            transport: Any
            transport, protocol = await loop.create_datagram_endpoint(
                Recorder, family=socket.AF_UNIX, local_addr=str(tmp_path / "ours")
            )
            transport.set_write_buffer_limits(high=1000, low=100)
            data = bytearray(b"0" * 100)
            sent = 0
            while ("pause",) not in protocol.calls:
                data[:4] = b"%4d" % sent
                transport.sendto(data, path)
                sent += 1
            waiting = transport.get_write_buffer_size()
            assert waiting > 1000
            assert waiting % 108 == 0  # The standard library's: 8 for each datagram.
            transport.close()  # Sends what waits.
            for number in range(sent):
                received = await loop.sock_recv(peer, 1000)
                assert received == b"%4d" % number + b"0" * 96
            await protocol.until(lambda: protocol.calls[-1] == ("lost", None))
            assert protocol.calls.count(("resume",)) == 1
            assert transport.get_write_buffer_size() == 0

    aio.run(loop, main())


def test_what_a_protocol_raises_is_reported_and_the_transport_goes_on(loop: EventLoop) -> None:
    class Failing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"bad":
                raise ZeroDivisionError

    async def main() -> None:
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        with udp() as peer:
            transport, protocol = await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))
            for data in (b"bad", b"good"):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await protocol.until(lambda: protocol.calls[-1][0] == b"good")
            (report,) = reports
            assert type(report["exception"]) is ZeroDivisionError
            transport.close()
            await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    aio.run(loop, main())


@pytest.mark.parametrize("data", ["text", 7, None])
def test_only_bytes_can_be_sent(loop: EventLoop, data: Any) -> None:
    async def main() -> None:
        transport, protocol = await loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
            transport.sendto(data, ("127.0.0.1", 9))
        transport.close()
        await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    aio.run(loop, main())


def test_what_waits_to_be_called_is_called_before_a_datagram_is_received(loop: EventLoop) -> None:
    endpoint = loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))
    transport, protocol = loop.run_until_complete(endpoint)

    async def main() -> None:
        protocol.note("called")
        await protocol.until(lambda: len(protocol.calls) == 3)
        assert protocol.calls[1] == ("called",)
        transport.close()
        await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    with udp() as peer:
        # It is there before the loop runs.
        peer.sendto(b"x", transport.get_extra_info("sockname"))
        loop.run_until_complete(main())


def test_nothing_is_received_while_reading_is_paused(loop: EventLoop) -> None:
    class Pausing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            transports[0].pause_reading()

    async def main() -> None:
        with udp() as peer:
            transport, protocol = await loop.create_datagram_endpoint(Pausing, local_addr=("127.0.0.1", 0))
            transports.append(transport)
            for _ in range(3):
                peer.sendto(b"x", transport.get_extra_info("sockname"))
            for count in (1, 2, 3):
                await protocol.until(lambda count=count: len(protocol.calls) == 1 + count)  # type: ignore[misc]
                await asyncio.sleep(0)
                assert len(protocol.calls) == 1 + count
                transports[0].resume_reading()
            transport.close()
            await protocol.until(lambda: protocol.calls[-1] == ("lost", None))

    transports: list[Any] = []
    aio.run(loop, main())


def test_a_datagram_without_an_address_ends_a_transport_without_a_peer(loop: EventLoop) -> None:
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        transport, protocol = await loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x")
        await protocol.until(lambda: protocol.calls[-1][0] == "lost")
        assert type(protocol.calls[-1][1]) is TypeError
        assert [type(report["exception"]) for report in reports] == [TypeError]

    aio.run(loop, main())
