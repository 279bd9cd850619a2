"""HTTP and the Redis protocol: wrk and redis-benchmark against small servers that do the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import build
from results import Result
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


def race(turns: int, missing: dict[str, str]) -> Iterator[Result]:
    for test, (protocol, client) in TESTS.items():
        if shutil.which(client[0]) is None:
            missing[test] = f"there is no {client[0]}"
            continue
        servers, absent = build.choose(commands(protocol))
        missing |= {f"{test}: {name}": reason for name, reason in absent.items()}
        results = {name: Result("protocols", name, BASE, {"test": test}) for name in servers}
        with ExitStack() as stack:
            running = {name: stack.enter_context(serving(command)) for name, command in servers.items()}
            for turn in range(turns):
                for name in list(running)[:: 1 if turn % 2 == 0 else -1]:
                    results[name].add(drive(running[name], client))
        yield from results.values()
