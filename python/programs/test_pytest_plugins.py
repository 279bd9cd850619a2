"""anyio's plugin of pytest and pytest-asyncio: a file of tests that they run on the loop."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ANYIO = """
import asyncio, sys
import anyio, pytest
from PACKAGE import new_event_loop

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": new_event_loop}

@pytest.fixture
async def served():
    async def echo(client):
        async with client:
            async for data in client:
                await client.send(data)

    async with anyio.create_task_group() as group:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        group.start_soon(listener.serve, echo)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()

@pytest.mark.anyio
async def test_the_loop():
    assert type(asyncio.get_running_loop()) is type(new_event_loop_type())

def new_event_loop_type():
    loop = new_event_loop()
    loop.close()
    return loop

@pytest.mark.anyio
async def test_streams(served):
    async with await anyio.connect_tcp("127.0.0.1", served) as client:
        for number in range(100):
            await client.send(b"%d" % number)
            assert await client.receive() == b"%d" % number

@pytest.mark.anyio
async def test_a_scope_that_is_cancelled():
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(30)
    assert scope.cancelled_caught

@pytest.mark.anyio
async def test_threads():
    assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0)) is None

@pytest.mark.anyio
async def test_processes():
    done = await anyio.run_process([sys.executable, "-c", "print(input())"], input=b"hello")
    assert done.stdout == b"hello\\n"

@pytest.mark.anyio
async def test_signals():
    import os, signal
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        async for number in signals:
            assert number == signal.SIGUSR1
            break
"""

PYTEST_ASYNCIO_SETTINGS = """
from PACKAGE import new_event_loop

def pytest_asyncio_loop_factories(config, item):
    return {"ours": new_event_loop}
"""

PYTEST_ASYNCIO = """
import asyncio
import pytest, pytest_asyncio
from PACKAGE import new_event_loop

@pytest_asyncio.fixture
async def served():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]

@pytest.mark.asyncio
async def test_the_loop():
    other = new_event_loop()
    other.close()
    assert type(asyncio.get_running_loop()) is type(other)

@pytest.mark.asyncio
async def test_streams(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served)
    writer.write(b"hello\\n")
    assert await reader.read() == b"hello\\n"
    writer.close()
    await writer.wait_closed()
"""


def check(python: str, folder: Path, files: dict[str, str], loop_name: str, tests: int) -> None:
    for name, text in files.items():
        (folder / name).write_text(text.replace("PACKAGE", loop_name.partition(":")[0]))
    command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    assert re.search(rf"^{tests} passed", done.stdout, re.M), done.stdout + done.stderr


def test_anyio(python: str, tmp_path: Path, loop_name: str) -> None:
    pytest.importorskip("anyio")
    check(python, tmp_path, {"test_inner.py": ANYIO}, loop_name, 6)


def test_pytest_asyncio(python: str, tmp_path: Path, loop_name: str) -> None:
    pytest.importorskip("pytest_asyncio")
    files = {"conftest.py": PYTEST_ASYNCIO_SETTINGS, "test_inner.py": PYTEST_ASYNCIO}
    check(python, tmp_path, files, loop_name, 2)
