"""hypercorn: HTTP/2 over TLS, with httpx as its client, in one loop."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST, free_port

pytest.importorskip("h2")
hypercorn_asyncio = pytest.importorskip("hypercorn.asyncio")
hypercorn_config = pytest.importorskip("hypercorn.config")
httpx = pytest.importorskip("httpx")

BODY = b"hello " * 20000


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BODY})


def test_http2_over_tls(run: Any, certificate: tuple[Path, Path], client_tls: ssl.SSLContext) -> None:
    config = hypercorn_config.Config()
    port = free_port()
    config.bind = [f"{HOST}:{port}"]
    config.certfile, config.keyfile = map(str, certificate)

    async def main() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(
            hypercorn_asyncio.serve(application, config, shutdown_trigger=stop.wait)
        )
        async with httpx.AsyncClient(http2=True, verify=client_tls) as client:
            while True:
                try:
                    first = await client.get(f"https://{HOST}:{port}/")
                    break
                except httpx.ConnectError:
                    assert not serving.done()
                    await asyncio.sleep(0.02)
            assert first.http_version == "HTTP/2"
            answers = await asyncio.gather(*(client.get(f"https://{HOST}:{port}/") for _ in range(100)))
            assert all(answer.content == BODY for answer in answers)
        stop.set()
        await serving

    run(main())
