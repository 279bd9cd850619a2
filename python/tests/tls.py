"""What the tests of TLS on the asyncio loop share: contexts, protocols, and peers of the ssl module's own."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import certificates
import pytest
from conftest import LONG
from test_aio_transports import Recorder

from omnipoll.aio import EventLoop

SIZES = (1, 1000, 16384, 65537, 1_000_000)
CLOSE_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER's: the peer gets a reset.
MODERN = sys.version_info >= (3, 11)  # The older protocol has no time limit for the end.


def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the fixture `certificate` of each file is made of, and those of the next two names."""
    return certificates.make(tmp_path_factory.mktemp("certificate"))


def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


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
