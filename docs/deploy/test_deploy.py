"""The configurations of this folder, each with its program: it checks them, and requests go through it.

    .venv/bin/python -m pytest docs/deploy
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import omnipoll
import pytest

HERE = Path(__file__).parent
LONG = 30
ENGINES = ("select", "poll", "epoll", "io_uring")


def needs(program: str) -> str:
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def app(*arguments: str) -> Iterator[str]:
    """The server: its address."""
    with running(sys.executable, str(HERE / "app.py"), *arguments) as process:
        yield process.stdout.readline().strip()


def configuration(name: str, folder: Path, **replaced: str) -> str:
    """A configuration with other addresses than those that are written in it."""
    text = (HERE / name).read_text()
    for port, address in replaced.items():
        text, count = re.subn(f"127.0.0.1:{port[1:]}", address, text)
        assert count == 1, port
    (folder / name).write_text(text)
    return str(folder / name)


def connect(address: str) -> socket.socket:
    """A client, as soon as the proxy listens."""
    host, port = address.split(":")
    end = time.monotonic() + LONG
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=LONG)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.01)


def ask(client: socket.socket) -> list[str]:
    client.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
    with client.makefile("rb") as answer:
        assert answer.readline().split()[1] == b"200"
        headers = dict(line.lower().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
        return answer.read(int(headers[b"content-length"])).decode().split()


def name_of(client: socket.socket) -> str:
    host, port = client.getsockname()
    return f"{host}:{port}"


def test_haproxy(tmp_path: Path) -> None:
    haproxy = needs("haproxy")
    front = f"127.0.0.1:{free_port()}"
    with app("--proxy-header", "--address", "127.0.0.1:0") as address:
        file = configuration("haproxy.cfg", tmp_path, p7000=address, p7080=front)
        assert subprocess.run((haproxy, "-c", "-f", file), capture_output=True, check=False).returncode == 0
        with running(haproxy, "-db", "-f", file), connect(front) as client:
            assert ask(client) == [name_of(client), "1"]
            assert ask(client) == [name_of(client), "2"]


def test_nginx(tmp_path: Path) -> None:
    nginx = needs("nginx")
    if not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
        pytest.skip("nginx has no stream module")
    fronts = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with app("--model", "reactor") as plain, app("--proxy-header") as behind:
        file = configuration(
            "nginx.conf", tmp_path, p7000=plain, p7080=fronts[0], p7001=behind, p7081=fronts[1]
        )
        own = f"daemon off; worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
        text = Path(file).read_text().replace("worker_processes auto;", own)
        Path(file).write_text(text.replace("http {", f"http {{ access_log {tmp_path}/access.log;"))
        checked = subprocess.run((nginx, "-t", "-c", file), capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        with running(nginx, "-c", file):
            for count in range(1, 4):  # Of three clients, over one connection.
                with connect(fronts[0]) as client:
                    assert ask(client)[1] == str(count)
            with connect(fronts[1]) as client:
                assert ask(client) == [name_of(client), "1"]


def test_units_are_valid(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    for unit in ("app.socket", "app.service"):
        text = (HERE / unit).read_text().replace("/usr/local/bin/app", "/bin/true")
        (tmp_path / unit).write_text(text)
    files = (tmp_path / "app.socket", tmp_path / "app.service")
    verified = subprocess.run((analyze, "verify", *files), capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def allowed(analyze: str, group: str) -> set[str]:
    """The system calls of a group of systemd's."""
    command = (analyze, "--no-pager", "syscall-filter", group)
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[1:]
    calls: set[str] = set()
    for word in (line.strip() for line in lines if line.strip() and not line.strip().startswith("#")):
        calls |= allowed(analyze, word) if word.startswith("@") else {word}
    return calls


@pytest.mark.parametrize("engine", ENGINES)
def test_the_environment_of_the_unit(engine: str, tmp_path: Path) -> None:
    """The unit's command and its environment, its reload and end; all that it calls is in its filter."""
    analyze, strace = needs("systemd-analyze"), needs("strace")
    try:
        omnipoll.Poller(engine).close()
    except OSError as error:
        pytest.skip(f"{engine}: {error}")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(LONG)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "200000",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "http",
    }
    arguments = re.search(r"^ExecStart=\S+ (.*)$", (HERE / "app.service").read_text(), re.MULTILINE)
    assert arguments is not None
    words = (sys.executable, str(HERE / "app.py"), "--engine", engine, *arguments[1].split())
    trace = (strace, "-f", "-qq", "-o", str(tmp_path / "trace"), *words)
    shell = f'exec 3<&{listener.fileno()}; exec "$@"'

    def next_notification() -> list[str]:
        while (message := manager.recv(1000).decode()) == "WATCHDOG=1":
            pass
        return message.split("\n")

    with manager, listener, running(
        "bash", "-c", shell, "bash", *trace, env=environment, pass_fds=[listener.fileno()]
    ):
        assert next_notification() == ["READY=1"]
        while manager.recv(1000) != b"WATCHDOG=1":
            pass
        with connect(address) as client:
            assert ask(client) == [name_of(client), "1"]
        main = int((tmp_path / "trace").read_text().split()[0])  # The first to call anything.
        os.kill(main, signal.SIGHUP)
        assert next_notification()[0] == "RELOADING=1"
        # Of the new process, and of the old one.
        ready, (follows, also_ready) = sorted((next_notification(), next_notification()), key=len)
        assert ready == [also_ready] == ["READY=1"]
        assert follows.startswith("MAINPID=")
        with connect(address) as client:
            assert ask(client) == [name_of(client), "1"]
        os.kill(int(follows.split("=")[1]), signal.SIGTERM)
        assert next_notification() == ["STOPPING=1"]
    called = set(re.findall(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), re.MULTILINE))
    assert called - allowed(analyze, "@system-service") - allowed(analyze, "@default") == set()
