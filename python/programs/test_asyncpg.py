"""asyncpg against PostgreSQL, over TLS: a pool, a cursor, COPY, a notification, a query that is cancelled."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST, free_port, program, started

asyncpg = pytest.importorskip("asyncpg")


def of_postgres(name: str) -> str:
    """Debian keeps the server's programs off PATH."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else program(name)


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a server, which has the certificate. It refuses to run as root: another user does."""
    initdb, postgres = of_postgres("initdb"), of_postgres("postgres")
    folder = tmp_path_factory.mktemp("postgres")
    user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        user = (program("setpriv"), "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
        for above in [folder, *folder.parents]:
            if above.owner() == "root" and above.stat().st_mode & 0o001 == 0:
                above.chmod(above.stat().st_mode | 0o001)
        shutil.chown(folder, "nobody")
    data = folder / "data"
    options = ("-D", str(data), "-U", "tester", "-A", "trust", "--no-sync")
    done = subprocess.run((*user, initdb, *options), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    for path, name in zip(certificate, ("server.crt", "server.key")):
        copy = data / name
        shutil.copy(path, copy)
        copy.chmod(0o600)
        if user:
            shutil.chown(copy, "nobody")
    port = free_port()
    settings = ("ssl=on", "fsync=off", f"listen_addresses={HOST}", f"unix_socket_directories={folder}")
    options = ("-D", str(data), "-p", str(port), *(word for text in settings for word in ("-c", text)))
    with started(*user, postgres, *options, port=port):
        yield port


async def use(port: int, tls: ssl.SSLContext) -> None:
    where = {"host": HOST, "port": port, "user": "tester", "database": "postgres", "ssl": tls}
    for _ in range(100):
        try:
            first = await asyncpg.connect(**where)
            break
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.05)
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
