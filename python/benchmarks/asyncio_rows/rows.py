"""What is measured: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One operation, on a server of `servers.py` that `load.py` talks to, or in the process alone."""

    name: str  # `--only` takes a part of it
    program: str  # a name in `servers.SERVERS`, or in `inside.PROGRAMS` if there is no load
    operations: int  # of one turn
    load: str = ""  # a name in `load.LOADS`
    size: int = 0  # bytes of a message
    clients: int = 1
    tls: bool = False


KIB = 1024

ROWS = (
    Row("protocol 1 KiB", "protocol", 5000, "echo", KIB),
    Row("protocol 1 KiB x10", "protocol", 8000, "echo", KIB, clients=10),
    Row("protocol 64 KiB", "protocol", 2000, "echo", 64 * KIB),
    Row("streams 1 KiB", "streams", 5000, "echo", KIB),
    Row("streams 1 KiB x10", "streams", 8000, "echo", KIB, clients=10),
    Row("streams readline", "readline", 5000, "echo", KIB),
    Row("sock_recv, sock_sendall", "sockets", 5000, "echo", KIB),
    Row("datagrams 1 KiB", "datagrams", 5000, "datagrams", KIB),
    Row("connect, echo, close", "protocol", 1000, "connect", KIB),
    Row("TLS 1 KiB", "protocol", 3000, "echo", KIB, tls=True),
    Row("TLS 64 KiB", "protocol", 600, "echo", 64 * KIB, tls=True),
    Row("HTTP by uvicorn", "uvicorn", 2000, "http"),
    Row("call_soon", "call_soon", 200_000),
    Row("call_later, cancelled", "call_later", 100_000),
    Row("call_soon_threadsafe", "threadsafe", 50_000),
    Row("task, sleep(0)", "task", 20_000),
    Row("queue", "queue", 20_000),
    Row("executor", "executor", 2000),
    Row("wait_for", "wait_for", 30_000),
    Row("subprocess", "subprocess", 60),
)


def named(parts: list[str]) -> list[Row]:
    """The rows whose names have one of these in them; all without any."""
    return [row for row in ROWS if not parts or any(part in row.name for part in parts)]


def by_name(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)
