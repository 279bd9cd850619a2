"""The servers that are measured. Each starts to serve on a port of its own and returns it."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from collections.abc import Awaitable
from typing import Any, Callable, Optional

HOST = "127.0.0.1"
READ = 1 << 16

Context = Optional[ssl.SSLContext]
KEPT: set[Any] = set()  # Tasks and servers that nothing else refers to.


def keep(thing: Any) -> None:
    KEPT.add(thing)


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoDatagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


def port_of(server: Any) -> int:
    keep(server)
    return int(server.sockets[0].getsockname()[1])


async def protocol(context: Context) -> int:
    loop = asyncio.get_running_loop()
    return port_of(await loop.create_server(Echo, HOST, 0, ssl=context, backlog=1024))


async def streams(context: Context) -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ):
            writer.write(data)
            await writer.drain()
        writer.close()

    return port_of(await asyncio.start_server(serve, HOST, 0, ssl=context))


async def readline(context: Context) -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    return port_of(await asyncio.start_server(serve, HOST, 0, ssl=context))


async def sockets(context: Context) -> int:
    loop = asyncio.get_running_loop()
    listener = socket.create_server((HOST, 0))
    listener.setblocking(False)

    async def serve(client: socket.socket) -> None:
        with client:
            while data := await loop.sock_recv(client, READ):
                await loop.sock_sendall(client, data)

    async def accept() -> None:
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep(loop.create_task(serve(client)))

    keep(loop.create_task(accept()))
    return int(listener.getsockname()[1])


async def datagrams(context: Context) -> int:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, local_addr=(HOST, 0))
    keep(transport)
    return int(transport.get_extra_info("sockname")[1])


async def uvicorn(context: Context) -> int:
    package = importlib.import_module("uvicorn")
    importlib.import_module("httptools")
    body = b"x" * 1024
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # asyncio sets TCP_NODELAY where the socket was made with the protocol's number, as its own servers' are.
    # Without it the two writes of an answer take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen(1024)
    config = package.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        timeout_keep_alive=3600,
    )
    server = package.Server(config)
    keep(asyncio.get_running_loop().create_task(server.serve(sockets=[listener])))
    return int(listener.getsockname()[1])


SERVERS: dict[str, Callable[[Context], Awaitable[int]]] = {
    serve.__name__: serve for serve in (protocol, streams, readline, sockets, datagrams, uvicorn)
}
