"""Programs of others, unmodified, on an event loop: what their tests share.

    make programs                        # on ours
    make programs OPTIONS="--loop asyncio -k redis"

Each program has a file. A package or another program that is not installed is skipped, and named.
"""

from __future__ import annotations

import asyncio
import faulthandler
import glob
import importlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import certificates
import pytest

HOST = "127.0.0.1"
LIMIT = 60  # seconds for one test


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        default="omnipoll",
        help="the package whose new_event_loop() makes the loops; OMNIPOLL_ENGINE chooses our engine",
    )


@pytest.fixture
def loop_name(request: pytest.FixtureRequest) -> str:
    """As programs take it in their options: uvicorn's --loop, for one."""
    return f"{request.config.getoption('--loop')}:new_event_loop"


@pytest.fixture
def new_event_loop(loop_name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    package, _, name = loop_name.partition(":")
    make: Callable[[], asyncio.AbstractEventLoop] = getattr(importlib.import_module(package), name)
    return make


@pytest.fixture
def run(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on the loop; what goes to the loop's exception handler fails the test."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        reported: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
            result = runner.run(main)
        assert reported == []
        return result

    return run


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """A test that hangs ends by an exception, or if that does not help by the end of the process."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"took more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(LIMIT)
    faulthandler.dump_traceback_later(LIMIT + 20, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def program(name: str) -> str:
    """Where a program is; without it the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program {name} is not here")
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def wait_until_it_listens(process: subprocess.Popen[str], port: int, said: list[str]) -> None:
    end = time.monotonic() + LIMIT / 2
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                raise AssertionError(f"{process.args} does not listen:\n{''.join(said)}") from None
            time.sleep(0.02)


@contextmanager
def started(*command: object, port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A server process from when it listens on the port; SIGTERM ends it, with success."""
    process = subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    said: list[str] = []
    reader = threading.Thread(target=lambda stream: said.extend(stream), args=(process.stdout,), daemon=True)
    reader.start()
    try:
        wait_until_it_listens(process, port, said)
        yield process
        process.terminate()
        status = process.wait(LIMIT / 2)
        reader.join(LIMIT / 2)
        assert status in (0, -signal.SIGTERM), "".join(said)
        assert "Traceback" not in "".join(said), "".join(said)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def python() -> str:
    return sys.executable


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    program("openssl")
    return certificates.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


def of_postgres(name: str) -> str:
    """Debian keeps the server's programs off PATH."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else program(name)


@pytest.fixture(scope="session")
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
        end = time.monotonic() + LIMIT / 2
        while subprocess.run((of_postgres("pg_isready"), "-q", "-h", HOST, "-p", str(port))).returncode:
            assert time.monotonic() < end, "PostgreSQL does not accept queries"
        yield port
