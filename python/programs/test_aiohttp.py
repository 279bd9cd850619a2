"""aiohttp: its server and its client, plain and with TLS, with bodies in pieces and WebSockets."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from conftest import HOST

aiohttp = pytest.importorskip("aiohttp")
web = pytest.importorskip("aiohttp.web")

BIG = bytes(range(256)) * 8192  # 2 MiB


async def echo(request: Any) -> Any:
    return web.Response(body=await request.read())


async def in_pieces(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(BIG), 65536):
        await response.write(BIG[start : start + 65536])
    return response


async def talk(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


async def program(server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None) -> None:
    application = web.Application(client_max_size=2 * len(BIG))
    application.add_routes([web.post("/echo", echo), web.get("/pieces", in_pieces), web.get("/talk", talk)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=server_tls).start()
    port = runner.addresses[0][1]
    base = f"{'https' if server_tls else 'http'}://{HOST}:{port}"
    connector = aiohttp.TCPConnector(ssl=client_tls or True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(body: bytes) -> bytes:
            async with session.post(f"{base}/echo", data=body) as response:
                return await response.read()  # type: ignore[no-any-return]

        bodies = [b"%d" % number for number in range(200)]
        assert await asyncio.gather(*map(post, bodies)) == bodies
        assert await post(BIG) == BIG
        async with session.get(f"{base}/pieces") as response:
            assert await response.read() == BIG
        async with session.ws_connect(f"{base}/talk") as socket:
            for number in range(50):
                await socket.send_str(f"hello {number}")
                assert await socket.receive_str() == f"HELLO {number}"
        with pytest.raises(asyncio.TimeoutError):
            await session.get(f"{base}/pieces", timeout=aiohttp.ClientTimeout(total=1e-9))
    await runner.cleanup()


def test_plain(run: Any) -> None:
    run(program(None, None))


def test_tls(run: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    run(program(server_tls, client_tls))
