"""aiosqlite, whose threads answer by call_soon_threadsafe."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

aiosqlite = pytest.importorskip("aiosqlite")


def test_aiosqlite(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with aiosqlite.connect(tmp_path / "numbers.db") as database:
            await database.execute("CREATE TABLE numbers (n int)")
            await asyncio.gather(
                *(database.execute("INSERT INTO numbers VALUES (?)", (n,)) for n in range(500))
            )
            await database.commit()
            async with database.execute("SELECT n FROM numbers ORDER BY n") as cursor:
                assert [n async for (n,) in cursor] == list(range(500))

    run(main())
