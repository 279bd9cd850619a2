"""asyncpg against PostgreSQL, over TLS: a pool, a cursor, COPY, a notification, a query that is cancelled."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from conftest import HOST

asyncpg = pytest.importorskip("asyncpg")


async def use(port: int, tls: ssl.SSLContext) -> None:
    where = {"host": HOST, "port": port, "user": "tester", "database": "postgres", "ssl": tls}
    first = await asyncpg.connect(**where)
    assert await first.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await first.execute("CREATE TABLE numbers (n int, text text)")
    rows = [(n, "x" * (n % 100)) for n in range(5000)]
    await first.copy_records_to_table("numbers", records=rows)
    heard: asyncio.Queue[str] = asyncio.Queue()
    await first.add_listener("news", lambda *what: heard.put_nowait(what[-1]))
    async with asyncpg.create_pool(**where, min_size=1, max_size=8) as pool:

        async def ask(n: int) -> Any:
            return await pool.fetchval("SELECT text FROM numbers WHERE n = $1", n)

        assert await asyncio.gather(*map(ask, range(200))) == [text for _, text in rows[:200]]
        await pool.execute("NOTIFY news, 'hello'")
        assert await asyncio.wait_for(heard.get(), 20) == "hello"
        with pytest.raises(asyncio.TimeoutError):
            await pool.fetchval("SELECT pg_sleep(30)", timeout=0.05)
    async with first.transaction():
        seen = [row["n"] async for row in first.cursor("SELECT n FROM numbers ORDER BY n")]
    assert seen == list(range(5000))
    await first.close()


def test_asyncpg(run: Any, database: int, client_tls: ssl.SSLContext) -> None:
    run(use(database, client_tls))
