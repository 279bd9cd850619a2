"""pyzmq's sockets for asyncio, which watch a descriptor by add_reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

zmq = pytest.importorskip("zmq")
zmq_asyncio = pytest.importorskip("zmq.asyncio")


def test_pyzmq(run: Any) -> None:
    async def main() -> None:
        with zmq_asyncio.Context() as context:
            asked, asking = context.socket(zmq.REP), context.socket(zmq.REQ)
            port = asked.bind_to_random_port("tcp://127.0.0.1")
            asking.connect(f"tcp://127.0.0.1:{port}")

            async def answer() -> None:
                for _ in range(200):
                    await asked.send((await asked.recv()).upper())

            answering = asyncio.create_task(answer())
            for number in range(200):
                await asking.send_string(f"hello {number}")
                assert await asking.recv_string() == f"HELLO {number}"
            await answering
            poller = zmq_asyncio.Poller()
            poller.register(asked, zmq.POLLIN)
            assert await poller.poll(20) == []
            await asking.send(b"once more")
            assert await poller.poll(20_000) == [(asked, zmq.POLLIN)]
            asked.close(0)
            asking.close(0)

    run(main())
