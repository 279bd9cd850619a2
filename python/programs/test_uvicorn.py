"""uvicorn with httptools as a process of its own: under wrk, and with httpx as its client."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST, free_port, program, started

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

APPLICATION = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    said = f"{type(asyncio.get_running_loop()).__module__} ".encode() + body
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": said})
"""


@pytest.fixture
def port(tmp_path: Path, python: str, loop_name: str) -> Iterator[int]:
    (tmp_path / "served.py").write_text(APPLICATION)
    port = free_port()
    options = ("--app-dir", tmp_path, "--port", port, "--http", "httptools", "--log-level", "warning")
    command = (python, "-m", "uvicorn", "served:application", "--loop", loop_name, *options)
    with started(*command, port=port):
        yield port


def test_under_wrk(port: int) -> None:
    command = (program("wrk"), "-t", "1", "-c", "50", "-d", "2s", f"http://{HOST}:{port}/")
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in", said)
    assert found and int(found[1]) > 0
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


def test_httpx(port: int, run: Any, new_event_loop: Any) -> None:
    httpx = pytest.importorskip("httpx")
    big = b"0123456789abcdef" * 65536

    async def ask() -> None:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", limits=limits) as client:
            answers = await asyncio.gather(*(client.post("/", content=b"%d" % n) for n in range(200)))
            module = type(asyncio.get_running_loop()).__module__.encode()
            assert [answer.content for answer in answers] == [module + b" %d" % n for n in range(200)]
            answer = await client.post("/", content=big)
            assert answer.content.endswith(big)
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{HOST}:{free_port()}/")

    run(ask())
