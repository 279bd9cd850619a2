"""Servers as a service manager operates them, in processes of their own, on every engine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
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
class Told(Echo):
    def on_data(self, connection, data):
        connection.write(str(self.server.notify(data.decode())).encode())
serve(Told(), signals=True, notify=True)
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


def test_nobody_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
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
