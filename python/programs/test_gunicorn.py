"""gunicorn with uvicorn's worker, which is forked before it makes its loop."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest
from conftest import HOST, free_port, started

pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn_worker")

APPLICATION = """
import asyncio, os
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": LOOP, "http": "auto"}

async def application(scope, receive, send):
    if scope["type"] == "http":
        said = f"{os.getpid()} {type(asyncio.get_running_loop()).__module__}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": said})
"""


def ask(port: int) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=30) as answer:
        pid, module = answer.read().decode().split()
    return int(pid), module


def test_workers_serve_and_one_that_is_killed_is_replaced(
    tmp_path: Path, python: str, loop_name: str
) -> None:
    (tmp_path / "served.py").write_text(APPLICATION.replace("LOOP", repr(loop_name)))
    port = free_port()
    command = (python, "-m", "gunicorn", "-k", "served.Worker", "-w", "2", "-b", f"{HOST}:{port}")
    with started(*command, "--chdir", tmp_path, "served:application", port=port):
        first, module = ask(port)
        assert module.startswith(loop_name.partition(":")[0])
        os.kill(first, signal.SIGKILL)
        later = {ask(port)[0] for _ in range(20)}
        assert later and first not in later
