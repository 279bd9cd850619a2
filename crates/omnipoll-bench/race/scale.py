#!/usr/bin/env python3
"""Very many connections on the processes of PREFORK: what they cost, and who serves them.

    scale.py [--connections 100000] [--workers 8] [--engines epoll,io_uring] [--seconds 300]

Clients in processes of their own, from addresses of their own (127.1.0.1 and on), connect one after
another and send a message on each connection, which they get back; then all connections are idle. A
process may have no more than so many descriptors: that limits what a worker serves, too. Printed for each
engine:

- connect: seconds from the first connect to the last answer, of clients, kernel and server on one machine;
- CPU: what the workers' processes spend on a connection: accepting it, and echoing its message;
- library: bytes of memory that the workers have for themselves, for a connection;
- total: the same, and what the kernel's slabs have grown by, for the sockets of both ends;
- workers: how many connections the one with the fewest has and the one with the most.

What could not be held in the time says how far it came.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import resource
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import build
import report
from proxy import anonymous
from results import Race, Result
from servers import serving

BASE = "omnipoll server, epoll, C"
PROGRAM = "echo_omnipoll_server"
SPARE = 200  # descriptors of a process that are not connections
MESSAGE = b"a message"
# Of 28,232 ports the kernel prefers those of one parity, and searches long when they are used up.
FROM_ONE_ADDRESS = 10_000
WARM_UP = 100  # connections of each worker before memory is counted
CLOSE_AT_ONCE = struct.pack("ii", 1, 0)  # by a reset, which leaves nothing in TIME_WAIT


def connect(source: str, port: int, end: float) -> socket.socket:
    """From that address; the system chooses a port that is free for this connection."""
    client = socket.socket()
    client.settimeout(max(end - time.monotonic(), 0.001))
    client.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT, which Python has no name for
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_AT_ONCE)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.sendall(MESSAGE)
    return client


def hold(number: int, port: int, orders: Connection) -> None:
    """Holds as many connections as its orders say, until they end. A turn says how many there are to be,
    and until when; the answer is how many there are."""
    held: list[socket.socket] = []
    while turn := receive(orders):
        wanted, end = turn
        answered = len(held)
        with contextlib.suppress(TimeoutError):
            while len(held) < wanted and time.monotonic() < end:
                source = f"127.1.{number}.{len(held) // FROM_ONE_ADDRESS + 1}"
                held.append(connect(source, port, end))
        with contextlib.suppress(TimeoutError):
            for client in held[answered:]:
                client.settimeout(max(end - time.monotonic(), 0.001))
                if client.recv(len(MESSAGE), socket.MSG_WAITALL) != MESSAGE:
                    raise RuntimeError("what came back is not what was sent")
                answered += 1
        orders.send(answered)


def receive(orders: Connection) -> tuple[int, float] | None:
    try:
        turn: tuple[int, float] = orders.recv()
        return turn
    except EOFError:
        return None


@contextlib.contextmanager
def clients(port: int, processes: int) -> Iterator[list[Connection]]:
    """Processes that hold connections."""
    orders, running = [], []
    context = multiprocessing.get_context("spawn")  # with no descriptor of the other ones
    for number in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=hold, args=(number, port, theirs), daemon=True)
        process.start()
        theirs.close()
        orders.append(ours)
        running.append(process)
    try:
        yield orders
    finally:
        for ours in orders:
            ours.close()
        for process in running:
            process.join(30)
            process.kill()


def share(connections: int, among: int) -> list[int]:
    return [connections // among + (number < connections % among) for number in range(among)]


def hold_in_all(orders: list[Connection], connections: int, end: float) -> int:
    """How many of so many are held."""
    for each, wanted in zip(orders, share(connections, len(orders))):
        each.send((wanted, end))
    return sum(each.recv() for each in orders)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pids: list[int]) -> float:
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def slabs() -> int:
    """Bytes of the kernel's objects: sockets, files, what watches them."""
    return 1024 * int(re.findall(r"^Slab: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)[0])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def measure(command: list[str], workers: int, connections: int, seconds: float) -> dict[str, float]:
    """One run of a server. Raises RuntimeError when a worker has ended."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE
    with serving([*command, str(workers)], core=None) as server:
        end = time.monotonic() + seconds
        with clients(server.port, -(-connections // most)) as orders:
            few = min(WARM_UP * workers, connections // 10)
            hold_in_all(orders, few, end)
            pids = children(server.pid)
            before = [descriptors(pid) for pid in pids]
            library, kernel, cpu = sum(map(anonymous, pids)), slabs(), cpu_seconds(pids)
            began = time.monotonic()
            held = hold_in_all(orders, connections, end)
            took = time.monotonic() - began
            grown = held - few
            library, kernel = sum(map(anonymous, pids)) - library, slabs() - kernel
            cpu = cpu_seconds(pids) - cpu
            if children(server.pid) != pids:
                raise RuntimeError("a worker has ended")
            each = sorted(descriptors(pid) - old for pid, old in zip(pids, before))
            return {
                "held": held,
                "seconds": took,
                "cpu_us": cpu / max(grown, 1) * 1e6,
                "library": library / max(grown, 1),
                "total": (library + kernel) / max(grown, 1),
                "fewest": each[0],
                "most": each[-1],
                "load": os.getloadavg()[0],
            }


def race(engines: list[str], workers: int, connections: int, seconds: float) -> Iterator[Result]:
    path = build.program(PROGRAM)
    assert path, f"{PROGRAM} was built"
    parameters: dict[str, int | str] = {"connections": connections, "workers": workers}
    for engine in engines:
        result = Result("scale", f"omnipoll server, {engine}, C", BASE, parameters)
        result.add(measure([path, engine], workers, connections, seconds))
        yield result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--engines", default="epoll,io_uring")
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()
    build.build()
    for result in race(options.engines.split(","), options.workers, options.connections, options.seconds):
        print(f"\n{report.scale_table(Race({}, {}, [result]))}", flush=True)


if __name__ == "__main__":
    main()
