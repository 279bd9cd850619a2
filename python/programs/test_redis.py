"""redis-py against redis-server: a pool, a pipeline, a subscription, a blocking call that is cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST, free_port, program, started

redis = pytest.importorskip("redis.asyncio")


def test_redis(run: Any, tmp_path: Path) -> None:
    port = free_port()
    path = tmp_path / "socket"
    options = ("--port", port, "--bind", HOST, "--save", "", "--dir", tmp_path, "--unixsocket", path)

    async def main() -> None:
        pool = redis.BlockingConnectionPool(host=HOST, port=port, max_connections=20)
        async with redis.Redis.from_pool(pool) as client:
            await asyncio.gather(*(client.set(f"key{n}", n) for n in range(500)))
            values = await asyncio.gather(*(client.get(f"key{n}") for n in range(500)))
            assert values == [b"%d" % n for n in range(500)]
            big = bytes(1 << 20)
            await client.set("big", big)
            assert await client.get("big") == big
            async with client.pipeline() as pipeline:
                for _ in range(100):
                    pipeline.incr("count")
                assert (await pipeline.execute())[-1] == 100
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.blpop("nothing", 30), 0.05)
            assert await client.get("count") == b"100"
            async with client.pubsub() as subscription:
                await subscription.subscribe("news")
                assert (await subscription.get_message(timeout=10))["type"] == "subscribe"
                await client.publish("news", "hello")
                assert (await subscription.get_message(timeout=10))["data"] == b"hello"
        async with redis.Redis(unix_socket_path=str(path)) as client:
            assert await client.get("count") == b"100"

    with started(program("redis-server"), *options, port=port):
        run(main())
