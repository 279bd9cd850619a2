"""aioquic: its server and its client, over datagrams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST

quic = pytest.importorskip("aioquic.asyncio")
configuration = pytest.importorskip("aioquic.quic.configuration")

BIG = bytes(range(256)) * 2048  # 512 KiB


def test_aioquic(run: Any, certificate: tuple[Path, Path]) -> None:
    serving = configuration.QuicConfiguration(alpn_protocols=["echo"], is_client=False)
    serving.load_cert_chain(*certificate)
    asking = configuration.QuicConfiguration(alpn_protocols=["echo"], server_name="localhost")
    asking.load_verify_locations(str(certificate[0]))
    tasks = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def echo() -> None:
            writer.write(await reader.read())
            writer.write_eof()

        tasks.add(asyncio.create_task(echo()))

    async def main() -> None:
        server = await quic.serve(HOST, 0, configuration=serving, stream_handler=serve)
        port = server._transport.get_extra_info("sockname")[1]
        async with quic.connect(HOST, port, configuration=asking) as client:

            async def ask(body: bytes) -> bytes:
                reader, writer = await client.create_stream()
                writer.write(body)
                writer.write_eof()
                return await reader.read()  # type: ignore[no-any-return]

            bodies = [b"%d" % number for number in range(50)] + [BIG]
            assert await asyncio.gather(*map(ask, bodies)) == bodies
        server.close()
        await asyncio.gather(*tasks)

    run(main())
