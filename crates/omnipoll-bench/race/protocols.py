#!/usr/bin/env python3
"""HTTP and the Redis protocol: wrk and redis-benchmark against small servers that do the same.

    protocols.py --count

has valgrind's callgrind count the servers' instructions in user space for a request of one client.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import build
import report
import turns
from results import Race, Result
from servers import CORES, Server, serving

BASE = "raw epoll, C"
LIMIT = 60  # seconds for one turn
CLIENTS = "50"

WRK = ["wrk", "-t", "1", "-c", CLIENTS, "-d", "1s"]
REDIS = ["redis-benchmark", "-c", CLIENTS, "--csv"]
# Each is a server's argument, and a client that says how many requests it made in a second.
TESTS = {
    "HTTP": ("http", WRK),
    "Redis GET": ("redis", [*REDIS, "-t", "get", "-n", "30000"]),
    "Redis SET": ("redis", [*REDIS, "-t", "set", "-n", "30000"]),
    "Redis GET, 16 at once": ("redis", [*REDIS, "-t", "get", "-n", "300000", "-P", "16"]),
}


# What instructions are counted with: a request, or several at once, made a few times and many times.
GET = b"*2\r\n$3\r\nGET\r\n$7\r\nkey:xxx\r\n"
REQUESTS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", 1),
    "Redis GET": (GET, 1),
    "Redis GET, 16 at once": (16 * GET, 16),
}
COUNTED = 200, 1200

# Programs for people to learn from, with fuller parsers and limits of their own.
EXAMPLES = {"http": "http", "redis": "kv"}


def commands(protocol: str) -> dict[str, list[str]]:
    """How each server is run. The first word is a program, which may not have been built."""
    servers = {
        BASE: ["serve_raw_epoll", protocol],
        "libuv, C": ["serve_libuv", protocol],
        "libevent, C": ["serve_libevent", protocol],
        "tokio, one thread, Rust": ["serve_tokio", protocol],
    }
    engines = build.engines()
    servers |= {f"omnipoll server, {name}, C": ["serve_omnipoll_server", protocol, name] for name in engines}
    best = [name for name in engines if name not in ("select", "poll")]
    servers |= {f"omnipoll example, {name}, C": [EXAMPLES[protocol], "--engine", name] for name in best}
    servers |= {f"omnipoll server, {name}, Rust": ["serve_omnipoll", protocol, name] for name in best}
    return servers


def spent(pid: int) -> int:
    """Nanoseconds of the processors' time that a process has spent: clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def drive(server: Server, client: list[str]) -> dict[str, float]:
    """One turn of a client against a server."""
    name, *options = client
    where = [f"http://127.0.0.1:{server.port}/"] if name == "wrk" else ["-p", str(server.port)]
    before = spent(server.pid)
    done = subprocess.run(
        [name, *options, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {CORES[0]}),
    )
    cpu = spent(server.pid) - before
    per_second, requests = requests_of(done.stdout)
    if requests == 0:
        requests = int(options[options.index("-n") + 1])
    return {"per_second": per_second, "cpu_ns": cpu / requests}


def requests_of(text: str) -> tuple[float, int]:
    """In a second, and in all; redis-benchmark makes a fixed number, and reports 0."""
    if found := re.search(r"(\d+) requests in .*Requests/sec:\s*([\d.]+)", text, re.S):
        if "Non-2xx" in text or "Socket errors" in text:
            raise RuntimeError(f"wrk had errors:\n{text}")
        return float(found[2]), int(found[1])
    if found := re.search(r'^"(?:GET|SET)","([\d.]+)"', text, re.M):
        return float(found[1]), 0
    raise RuntimeError(f"no number of requests in:\n{text}")


def ask(server: Server, requests: bytes, number: int, times: float) -> float:
    """Makes so many requests, so many times over, one after another; returns how many there were."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(requests)
        length, ends = 0, 0
        while ends < number:  # the answer to the first has as many bytes as the others
            answer = client.recv(65536)
            length += len(answer)
            ends += answer.count(b"world!") + answer.count(b"$-1\r\n")
        for _ in range(int(times)):
            client.sendall(requests)
            client.recv(length, socket.MSG_WAITALL)
    return times * number


def count(missing: dict[str, str]) -> Iterator[Result]:
    """Instructions in user space for a request, of each server that valgrind can run."""
    if shutil.which("valgrind") is None:
        missing["protocols: instructions"] = "there is no valgrind"
        return
    for test, (requests, number) in REQUESTS.items():
        servers, _ = build.choose(commands(TESTS[test][0]))
        for name, command in servers.items():
            if "io_uring" in name:
                continue
            made = functools.partial(ask, requests=requests, number=number)
            found = turns.count(serving, command, COUNTED, lambda server, times: made(server, times=times))  # noqa: B023
            if found is not None:
                result = Result("protocols", name, BASE, {"test": test, "counted": "instructions"})
                result.add({"instructions": found})
                yield result


def race(times: int, missing: dict[str, str]) -> Iterator[Result]:
    for test, (protocol, client) in TESTS.items():
        if shutil.which(client[0]) is None:
            missing[test] = f"there is no {client[0]}"
            continue
        servers, absent = build.choose(commands(protocol))
        missing |= {f"{test}: {name}": reason for name, reason in absent.items()}
        results = {name: Result("protocols", name, BASE, {"test": test}) for name in servers}
        with ExitStack() as stack:
            running = {name: stack.enter_context(serving(command)) for name, command in servers.items()}
            for turn in range(times):
                for name in list(running)[:: 1 if turn % 2 == 0 else -1]:
                    results[name].add(drive(running[name], client))
        yield from results.values()


def main() -> None:
    if sys.argv[1:] != ["--count"]:
        sys.exit(__doc__)
    build.build()
    print(report.instructions_table(Race({}, {}, list(count({})))))


if __name__ == "__main__":
    main()
