"""What the tests of servers share: clients, and programs that serve in processes of their own."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from omnipoll import Connection, Server

LONG = 10  # Seconds to wait for what must come.
MODELS = ("reactor", "cores", "thread", "fork", "prefork")
SHARING = ("reactor", "cores", "thread")
FORKING = ("fork", "prefork")

PROGRAM = """
import os, sys, omnipoll
from serving import Echo
model, engine = sys.argv[1:]

def serve(handler, **options):
    if model in ("cores", "prefork"):
        options["workers"] = 2
    server = omnipoll.Server(handler, "127.0.0.1:0", model=model, engine=engine, **options)
    handler.server = server
    print(*server.addresses, flush=True)
    server.run()
"""


class Serve:
    """Makes servers on a model and an engine, which serve until the test ends."""

    def __init__(self, model: str, engine: str, stack: ExitStack) -> None:
        self.model, self.engine, self.stack = model, engine, stack

    def __call__(self, handler: Any, address: Any = "127.0.0.1:0", **options: Any) -> Server:
        options = {"model": self.model, "engine": self.engine, "drain": LONG, **options}
        if self.model == "cores":
            options.setdefault("workers", 2)
        return self.stack.enter_context(Server(handler, address, **options))

    def end(self) -> None:
        self.stack.close()


class Echo:
    def on_data(self, connection: Connection, data: bytes) -> None:
        connection.write(data)


class Recorder(Echo):
    """Echoes, and queues its calls in their order."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def on_open(self, connection: Connection) -> bool | None:
        self.calls.put(("open", connection))
        return None

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        self.calls.put(("close", connection, error))

    def next(self) -> tuple[Any, ...]:
        return self.calls.get(timeout=LONG)

    def opened(self) -> Connection:
        what, connection = self.next()
        assert what == "open"
        assert isinstance(connection, Connection)
        return connection

    def closed(self) -> OSError | None:
        what, _, error = self.next()
        assert what == "close"
        assert error is None or isinstance(error, OSError)
        return error


def connect(address: str | Server) -> socket.socket:
    if isinstance(address, Server):
        address = address.addresses[0]
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(LONG)
        client.connect(address[len("unix:") :].replace("@", "\0"))
        return client
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), timeout=LONG)


def refused(address: str) -> None:
    """Waits until nothing listens any more."""
    while True:
        try:
            connect(address).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # The socket was closed meanwhile.


def receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(min(count - len(data), 65536))
        assert more, f"it ended after {data[-100:]!r}"
        data += more
    return data


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return receive(client, len(question))


def ask_where(address: tuple[str, int]) -> bytes:
    """What a server of datagrams answers, from the address that was asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.connect(address)
        client.send(b"where?")
        return client.recv(100)


def read_all(client: socket.socket) -> bytes:
    data = b""
    while more := client.recv(65536):
        data += more
    return data


def talk(address: str, *pieces: bytes) -> bytes:
    """Sends pieces and ends; what is answered to all of them."""
    with connect(address) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


Program = subprocess.Popen[bytes]


@contextmanager
def program(
    source: str, model: str, engine: str, pass_fds: Sequence[int] = ()
) -> Iterator[tuple[Program, str]]:
    """A program that prints the address it serves on; it is killed when it has not ended."""
    command = [sys.executable, "-c", PROGRAM + source, model, engine]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command,
        bufsize=0,  # readline() then takes no more than the line.
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=pass_fds,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            address = process.stdout.readline().decode().strip()
            assert address, process.stderr.read()
            yield process, address
        finally:
            if process.poll() is None:
                process.kill()


def end(process: Program, number: int = signal.SIGTERM) -> tuple[str, str]:
    """Ends it by a signal; what else it has printed, and what it has complained of."""
    process.send_signal(number)
    said, complained = last_words(process)
    assert process.returncode == 0, complained
    return said, complained


def last_words(process: Program) -> tuple[str, str]:
    said, complained = process.communicate(timeout=LONG)
    return said.decode(), complained.decode()
