"""Servers as a service manager operates them, in processes of their own, on every engine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import LONG, MODELS, Echo, ask, connect, end, program, receive

from omnipoll import Server


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager, which the environment names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "notify"))
        reader.settimeout(LONG)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield reader


NOTIFYING = """
class Operated(Echo):
    def on_data(self, connection, data):
        connection.write(str(self.server.notify(data.decode())).encode())
serve(Operated(), signals=True, notify=True)
"""


def test_a_service_manager_is_told(model: str, engine: str, manager: socket.socket) -> None:
    with program(NOTIFYING, model, engine) as (process, address):
        assert manager.recv(100) == b"READY=1"
        with connect(address) as client:
            client.sendall(b"STATUS=warm")
            assert receive(client, 4) == b"True"
        assert manager.recv(100) == b"STATUS=warm"
        assert end(process) == ("", "")
        assert manager.recv(100) == b"STOPPING=1"


RESTARTING = """
import signal
class Who(Echo):
    process = os.getpid()
    def on_data(self, connection, data):
        connection.write(b"%%d\\n" %% self.process)

def report(process, error):
    print("replaced by", process, type(error).__name__, flush=True)

serve(Who(), signals=True, restart=%s, restart_timeout=0.05 if %r else 60, on_restart=report)
"""


def who(address: str) -> int:
    with connect(address) as client:
        client.sendall(b"who?")
        return int(client.makefile().readline())


@pytest.mark.parametrize("model", ["reactor", "cores", "prefork"])
def test_a_new_process_takes_over(model: str) -> None:
    with program(RESTARTING % (True, False), model, "auto") as (process, address):
        assert who(address) == process.pid
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == address  # Printed by the new one.
        words = process.stdout.readline().decode().split()
        assert words[:2] + words[3:] == ["replaced", "by", "NoneType"]
        assert process.wait(LONG) == 0
        follows = int(words[2])
        assert who(address) == follows
        os.kill(follows, signal.SIGTERM)
        assert process.stdout.read() == b""  # It has ended.


@pytest.mark.parametrize(
    ("command", "is_late", "error"),
    [
        (["/nowhere/server"], False, "FileNotFoundError"),
        (["false"], False, "BrokenPipeError"),
        (["sleep", "600"], True, "TimeoutError"),
    ],
)
def test_a_server_goes_on_when_no_process_follows(command: list[str], is_late: bool, error: str) -> None:
    with program(RESTARTING % (command, is_late), "prefork", "auto") as (process, address):
        assert who(address) == process.pid
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline().decode().split() == ["replaced", "by", "None", error]
        assert who(address) == process.pid
        assert end(process) == ("", "")


def test_restarts_that_cannot_be() -> None:
    with pytest.raises(OSError, match=r"not supported|already") as raised:
        Server(Echo()).restart()
    assert raised.value.errno == errno.ENOTSUP
    server = Server(Echo(), restart=True)
    server.restart()
    with pytest.raises(OSError, match=r"not supported|already") as raised:
        server.restart()
    assert raised.value.errno == errno.EALREADY
    for restart in ("command", [], [3]):
        with pytest.raises((TypeError, ValueError)):
            Server(Echo(), restart=restart)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shares its sockets"):
        Server(Echo(), restart=True, model="cores", reuse_port=True)


REPLACED = """
import signal, time
class Who(Echo):
    def on_data(self, connection, data):
        if data == b"hang":
            time.sleep(3600)
        connection.write(b"%d\\n" % os.getpid())
options = {"rolling": {}, "limited": {"clients_per_worker": 3}, "hung": {"hang_timeout": 0.7}}[MODE]
handler = Who()
signal.signal(signal.SIGUSR1, lambda *_: handler.server.restart_workers())
serve(handler, signals=True, drain=10, **options)
"""


@pytest.mark.parametrize("mode", ["rolling", "limited", "hung"])
def test_workers_are_replaced(mode: str) -> None:
    with program(REPLACED.replace("MODE", repr(mode)), "prefork", "auto") as (process, address):
        first = {who(address) for _ in range(3)}
        if mode == "rolling":
            process.send_signal(signal.SIGUSR1)
        with connect(address) as client:
            if mode == "hung":
                client.sendall(b"hang")
            end_of_time = time.monotonic() + 3 * LONG
            now = None
            while now in (None, *first):
                assert time.monotonic() < end_of_time
                # A ring accepts clients while its worker hangs: they are reset with it.
                with contextlib.suppress(*((ConnectionError,) if mode == "hung" else ())):
                    now = who(address)
        assert end(process) == ("", "")


NAMED = """
os.dup2(%d, 3), os.dup2(%d, 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="web:admin")
server = omnipoll.Server(Echo(), "systemd:admin", model=model, engine=engine, workers=2, signals=True)
print(*server.addresses, flush=True)
server.run()
"""


def test_sockets_of_systemd_have_names(model: str) -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        passed = [fcntl.fcntl(listener, fcntl.F_DUPFD, 64) for listener in listeners]
        with program(NAMED % tuple(passed), model, "auto", passed) as (process, address):
            assert address == f"127.0.0.1:{listeners[1].getsockname()[1]}"
            with connect(address) as client:
                assert ask(client, b"hello") == b"hello"
            assert end(process) == ("", "")
        for number in passed:
            os.close(number)


def test_nobody_is_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Server(Echo(), notify=True).notify("STATUS=x") is False
    monkeypatch.setenv("NOTIFY_SOCKET", "somewhere")
    with pytest.raises(ValueError, match="NOTIFY_SOCKET"):
        Server(Echo(), notify=True)
    with pytest.raises(ValueError, match="systemd"):
        Server(Echo(), "systemd:web")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(ValueError, match="of that name"):
        Server(Echo(), "systemd:web")
