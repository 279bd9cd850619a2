"""TLS on the asyncio loop, with plain sockets of the ssl module at the other end, and with its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import aio
import pytest
import tls
from conftest import LONG
from tls import (
    CLOSE_AT_ONCE,
    MODERN,
    BufferedEcho,
    Client,
    Echo,
    Peer,
    ask,
    connect,
    end,
    messages,
    receive,
    serve,
)

from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)
certificate = pytest.fixture(scope="module")(tls.certificate)
serving = pytest.fixture(tls.serving)
asking = pytest.fixture(tls.asking)


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
