"""websockets: a server with 1,000 clients at once."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import pytest
from conftest import HOST

client = pytest.importorskip("websockets.asyncio.client")
server = pytest.importorskip("websockets.asyncio.server")

CLIENTS = 1000
ROUNDS = 3


def test_a_thousand_clients(run: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CLIENTS + 100:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CLIENTS + 100), hard))

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with server.serve(echo, HOST, 0, compression=None) as serving:
            port = serving.sockets[0].getsockname()[1]
            some = asyncio.Semaphore(100)  # connect at a time
            together = asyncio.Barrier(CLIENTS)

            async def talk(number: int) -> None:
                async with some:
                    connection = await client.connect(
                        f"ws://{HOST}:{port}", compression=None, open_timeout=40
                    )
                async with connection:
                    await together.wait()
                    for turn in range(ROUNDS):
                        await connection.send(f"{number} {turn}")
                        assert await connection.recv() == f"{number} {turn}"

            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(talk(number))

    run(main())
