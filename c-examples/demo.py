#!/usr/bin/env python3
"""Serves real TCP clients with echo.c and chat.c on each engine, and prints a table.

Every client checks what it receives: each message once, in order, unchanged. The exit status
is 1 when anything is lost or wrong. `make demo` builds the servers and runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
IO_URING = ctypes.CDLL(str(TREE / "target/release/libomnipoll_capi.so")).omni_engine_available(4) == 1
ENGINES = ("select", "poll", "epoll") + (("io_uring",) if IO_URING else ())
ECHO_MESSAGES = 600  # from each client
CHAT_LINES = 12  # from each client, to all the others
PATIENCE = 10  # seconds without a message, after which those missing are lost

Address = tuple[str, int]


class Wrong(Exception):
    """A message that should not have come, or not now."""


class Tally:
    """What the clients of one server have seen."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.latencies = array("q")  # nanoseconds, one for each message received
        self.elapsed = 0.0  # seconds

    @property
    def lost(self) -> int:
        return self.expected - len(self.latencies)

    def percentiles(self, *percents: int) -> list[float]:
        """Latencies in microseconds."""
        ordered = sorted(self.latencies)
        return [ordered[(len(ordered) - 1) * percent // 100] / 1000 for percent in percents]


class Client:
    """One connection, with one message in progress at a time."""

    def __init__(self, sock: socket.socket, number: int, tally: Tally) -> None:
        self.sock, self.number, self.tally = sock, number, tally
        self.sequence = 0
        self.sent_at = 0

    def send(self, message: bytes) -> None:
        self.sent_at = time.perf_counter_ns()
        if self.sock.send(message) != len(message):
            raise Wrong("a socket that should be empty took only a part of a message")

    def start(self) -> None:
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        raise NotImplementedError


class EchoClient(Client):
    """Sends a message, waits until it has come back, sends the next."""

    def start(self) -> None:
        text = b"client %d message %d " % (self.number, self.sequence)
        self.missing = text.ljust(63, b".") + b"\n"
        self.send(self.missing)

    def receive(self, data: bytes) -> None:
        if not self.missing.startswith(data):
            raise Wrong(f"client {self.number} got {data!r} instead of {self.missing!r}")
        self.missing = self.missing[len(data) :]
        if self.missing:
            return
        self.tally.latencies.append(time.perf_counter_ns() - self.sent_at)
        self.sequence += 1
        if self.sequence < ECHO_MESSAGES:
            self.start()


class ChatClient(Client):
    """Sends a line, waits until all the others have it, sends the next."""

    def enter(self, room: list[ChatClient]) -> None:
        self.room = room
        self.last = [-1] * len(room)  # the last line of each of the others
        self.incomplete = b""

    def start(self) -> None:
        self.listeners = len(self.room) - 1
        self.send(b"%d %d\n" % (self.number, self.sequence))

    def receive(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        *lines, self.incomplete = (self.incomplete + data).split(b"\n")
        for line in lines:
            number, sequence = map(int, line.split())
            if number == self.number or sequence != self.last[number] + 1:
                raise Wrong(f"client {self.number} got line {sequence} of {number} out of turn")
            self.last[number] = sequence
            self.tally.latencies.append(now - self.room[number].sent_at)
            self.room[number].heard_by_one()

    def heard_by_one(self) -> None:
        self.listeners -= 1
        if self.listeners == 0 and self.sequence + 1 < CHAT_LINES:
            self.sequence += 1
            self.start()


def echo(sockets: list[socket.socket]) -> tuple[Tally, list[Client]]:
    tally = Tally(len(sockets) * ECHO_MESSAGES)
    return tally, [EchoClient(sock, number, tally) for number, sock in enumerate(sockets)]


def chat(sockets: list[socket.socket]) -> tuple[Tally, list[Client]]:
    # A line goes to the clients that have joined. They join one by one: all get the last one's lines.
    *others, last = sockets
    last.sendall(b"in\n")
    for sock in others:
        if sock.recv(3) != b"in\n":
            raise Wrong("a client was not let in")
    tally = Tally(len(sockets) * (len(sockets) - 1) * CHAT_LINES)
    room = [ChatClient(sock, number, tally) for number, sock in enumerate(sockets)]
    for client in room:
        client.enter(room)
    return tally, [*room]


def exchange(clients: list[Client], tally: Tally) -> None:
    """Lets the clients send and receive until all is there, or nothing comes any more."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.sock.setblocking(False)
            selector.register(client.sock, selectors.EVENT_READ, client)
        begin = time.perf_counter()
        for client in clients:
            client.start()
        while tally.lost and (ready := selector.select(PATIENCE)):
            for key, _ in ready:
                data = key.data.sock.recv(65536)
                if not data:
                    raise Wrong(f"the server has closed the connection of client {key.data.number}")
                key.data.receive(data)
        tally.elapsed = time.perf_counter() - begin


def expect_the_end(sockets: list[socket.socket]) -> None:
    """Closes the connections: nothing more may come."""
    for sock in sockets:
        sock.shutdown(socket.SHUT_WR)
    for sock in sockets:
        sock.settimeout(PATIENCE)
        if data := sock.recv(65536):
            raise Wrong(f"{data!r} came after the last message")


@contextlib.contextmanager
def connections(address: Address, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
        for sock in sockets:
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sockets


@contextlib.contextmanager
def server(program: Path, engine: str) -> Iterator[tuple[Address, Callable[[], float]]]:
    """Runs a server: its address, and what ends it and returns its processor time in seconds."""
    process = subprocess.Popen([program, "--engine", engine], stdout=subprocess.PIPE, text=True)

    def end() -> float:
        process.terminate()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise Wrong(f"{program.name} ended with status {process.returncode}")
        return usage.ru_utime + usage.ru_stime

    assert process.stdout
    with process.stdout:
        try:
            host, _, port = process.stdout.readline().rpartition(" ")[2].rpartition(":")
            yield (host, int(port)), end
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()


def serve(program: Path, engine: str, count: int) -> bool:
    """Prints one line of the table; whether all was well."""
    play = {"echo": echo, "chat": chat}[program.name]
    print(f"{engine:<9}{program.name:<7}{count:>8}", end="", flush=True)
    try:
        with server(program, engine) as (address, end), connections(address, count) as sockets:
            tally, clients = play(sockets)
            exchange(clients, tally)
            if not tally.lost:
                expect_the_end(sockets)
            cpu = end()
    except (Wrong, OSError, ValueError) as error:
        print(f"  {error}")
        return False
    received = len(tally.latencies)
    p50, p99 = tally.percentiles(50, 99) if received else (0.0, 0.0)
    rate = received / tally.elapsed
    cost = cpu * 1e6 / max(received, 1)
    print(f"{received:>10,}{rate:>12,.0f}{p50:>10,.0f}{p99:>10,.0f}{cost:>12.2f}{tally.lost:>7}")
    return tally.lost == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--programs", type=Path, default=TREE / "target/examples", metavar="FOLDER")
    options = parser.parse_args()
    if options.clients < 2:
        parser.error("a chat needs two clients")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    print(f"{'':<24}{'':>10}{'':>12}{'latency in us':>20}{'server CPU':>12}")
    print(
        f"{'engine':<9}{'server':<7}{'clients':>8}{'messages':>10}{'messages/s':>12}"
        f"{'p50':>10}{'p99':>10}{'us/message':>12}{'lost':>7}"
    )
    runs = [(options.programs / name, engine) for name in ("echo", "chat") for engine in ENGINES]
    results = [serve(program, engine, options.clients) for program, engine in runs]
    print(
        "\nA message is one receipt by one client. Latency is from its sending to its receipt, with a\n"
        "message of every client in progress at any time. The clients are one Python process on the same\n"
        "machine: messages/s is their pace, not the servers' limit."
    )
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
