#!/usr/bin/env python3
"""Races TCP proxies: each of them alone, in turns, between the load and one echo server.

    proxy.py [--clients 1,50,1000] [--bytes 64,16384] [--seconds 0.15] [--turns 15] [--only NAME]...
             [--reconnect]
    proxy.py --count|--misses [--clients ...] [--bytes ...] [--only NAME]...
    proxy.py --calls [--only NAME]...
    proxy.py --memory [--only NAME]...

Prints for each discipline the medians, and the ratio of the proxy's CPU time to that of the raw epoll loop
as echo.py does. The proxy has a core of its own; the load and the echo server share the other. --calls has
strace count the system calls for a message and for a connection of one message, --memory says what memory of
its own the process takes for a connection on which nothing happens, and --count has valgrind's callgrind
count instructions in user space for a message, --misses reads and writes that miss the processor's first
cache as it models that.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Callable

import build
import packaged
import report
import turns
from results import Race, Result
from servers import CORES, Server, serving
from turns import Commands

BASE = "raw epoll, C"
BACKEND = "echo_raw_epoll"
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx, libnginx-mod-stream"}
UNITS = (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")
RESOURCES = "resources"
# What a connection takes is counted between so many of them; on the few, messages warm up the buffers, the
# 2 MiB too that a ring of ours fills one after another.
FEW, MANY = 100, 2000
WARM_UP = 200
# What system calls are counted with, in a shorter turn and a longer one.
CALLS_CLIENTS, CALLS_BYTES, CALLS_SECONDS = 50, 64, (0.3, 1.2)
# As many messages more, so that those that are half counted at the ends don't matter.
CALLS_LEAST = 20 * CALLS_CLIENTS


def commands() -> Commands:
    """How each proxy is run, but for its backend, ADDRESS:PORT, which comes last. The first word is a
    program, which may not have been built."""
    proxies = {
        BASE: ["proxy_raw_epoll"],
        "raw epoll again, C": ["proxy_raw_epoll"],
        "raw splice, C": ["proxy_raw_splice"],
        "raw io_uring, C": ["proxy_raw_io_uring"],
        "libuv, C": ["proxy_libuv"],
        "libevent, C": ["proxy_libevent"],
        "tokio, one thread, Rust": ["proxy_tokio"],
    }
    launcher = str(build.BENCH / "race" / "packaged.py")
    proxies |= {f"{name}, package": [sys.executable, launcher, name] for name in PACKAGES}
    best = [engine for engine in build.engines() if engine not in ("select", "poll")]
    proxies |= {f"omnipoll poller, {engine}, C": ["proxy_omnipoll_poller", engine] for engine in best}
    proxies |= {f"omnipoll relay, {engine}, Rust": ["proxy_omnipoll", engine] for engine in best}
    proxies |= {
        f"omnipoll relay, {engine}, C": ["proxy", "--engine", engine, "127.0.0.1:0"] for engine in best
    }
    return proxies


def choose(names: list[str]) -> tuple[Commands, dict[str, str]]:
    """Those that are wanted, all without names, and are there; and why others are missing."""
    wanted = turns.wanted(commands(), BASE, names)
    absent = {}
    for name, package in PACKAGES.items():
        if f"{name}, package" in wanted and not packaged.installed(name):
            del wanted[f"{name}, package"]
            absent[f"{name}, package"] = f"not installed ({package})"
    chosen, missing = build.choose(wanted)
    return chosen, {f"proxy: {name}": reason for name, reason in (absent | missing).items()}


@contextmanager
def proxying(command: list[str]) -> Iterator[Server]:
    """Runs a proxy, and an echo server beside the load. A new one each time: connections to its port that
    have ended keep their own ports for a minute, and there are few of them."""
    path = build.program(BACKEND)
    assert path, f"{BACKEND} was built"
    with serving([path], CORES[0]) as backend:
        with serving([*command, f"127.0.0.1:{backend.port}"]) as proxy:
            yield proxy


def title(clients: int, size: int, reconnect: bool) -> str:
    """The name of a discipline."""
    length = next(f"{size // unit} {name}" for unit, name in UNITS if size % unit == 0)
    return f"{'connect, ' if reconnect else ''}{length} x {clients:,}"


def race(
    chosen: Commands,
    clients: int,
    size: int,
    seconds: float,
    least: int,
    budget: float,
    reconnect: bool = False,
) -> list[Result]:
    """All of them in one discipline: at least so many turns, and more until the time is over."""
    test = title(clients, size, reconnect)
    results = {name: Result("proxy", name, BASE, {"test": test}) for name in chosen}

    def run(name: str) -> turns.Figures:
        with proxying(chosen[name]) as proxy:
            return turns.drive(proxy, clients, size, seconds, CORES[0], reconnect)

    turns.alternate(results, BASE, run, least, budget)
    return list(results.values())


def calls(command: list[str], reconnect: bool) -> float:
    """System calls for a message, or for a connection of one: a longer turn less a shorter one. At the end
    of each, some messages are half counted: the longer one lasts until they are few among all."""
    shorter, longer = CALLS_SECONDS
    less, few = counted_calls(command, reconnect, shorter)
    while True:
        more, many = counted_calls(command, reconnect, longer)
        if many - few >= CALLS_LEAST or longer > turns.LIMIT / 4:
            return (more - less) / (many - few)
        longer *= 2


def counted_calls(command: list[str], reconnect: bool, seconds: float) -> tuple[int, float]:
    """The system calls of a turn, and its messages."""
    with tempfile.NamedTemporaryFile("r") as log:
        # -I 2: it can be ended, and ends the proxy.
        tracer = ["strace", "-I", "2", "-f", "-qq", "-c", "-U", "calls,name", "-o", log.name]
        with proxying([*tracer, *command]) as proxy:
            done = turns.drive(proxy, CALLS_CLIENTS, CALLS_BYTES, seconds, CORES[0], reconnect)
        total = re.findall(r"^ *(\d+) total$", Path(log.name).read_text(), re.M)
    return int(total[-1]), done["all"]


def anonymous(pid: int) -> int:
    """Bytes of memory that a process has for itself alone, without what it maps of files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.findall(r"^Anonymous: *(\d+) kB$", text, re.M)[0])


def memory(command: list[str]) -> float:
    """Bytes for a proxied connection that has passed on one message, and on which nothing happens now."""
    with proxying(command) as proxy, ExitStack() as opened:

        def connect() -> socket.socket:
            client = opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            exchange(client)
            return client

        few = [connect() for _ in range(FEW)]
        for client in few * WARM_UP:
            exchange(client)
        before = anonymous(proxy.pid)
        for _ in range(MANY):
            connect()
        return max(anonymous(proxy.pid) - before, 0) / MANY


def exchange(client: socket.socket) -> None:
    message = b"\0" * 64
    client.sendall(message)
    if client.recv(len(message), socket.MSG_WAITALL) != message:
        raise RuntimeError("what came back is not what was sent")


def resources(chosen: Commands, times: int) -> list[Result]:
    """What each takes but time; system calls only where there is strace."""
    measures: dict[str, Callable[[list[str]], float]] = {"bytes": memory}
    if shutil.which("strace"):
        measures["message_calls"] = lambda command: calls(command, reconnect=False)
        measures["connection_calls"] = lambda command: calls(command, reconnect=True)
    results = {name: Result("proxy", name, BASE, {"test": RESOURCES}) for name in chosen}
    for name, command in chosen.items():
        for _ in range(times):
            results[name].add({figure: measure(command) for figure, measure in measures.items()})
    return list(results.values())


def count_each(words: str, chosen: Commands, measure: Callable[[list[str]], float | None]) -> None:
    print(f"\n{words}\n")
    for name, command in chosen.items():
        found = measure(command)
        print(f"{name:<30}{'not counted' if found is None else f'{found:,.2f}':>14}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", type=turns.numbers, default=[1, 50, 1000])
    parser.add_argument("--bytes", type=turns.numbers, default=[64, 16384])
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--reconnect", action="store_true")
    for what in ("count", "misses", "calls", "memory"):
        parser.add_argument(f"--{what}", action="store_true")
    options = parser.parse_args()
    build.build()
    chosen, missing = choose(options.only)
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    if options.calls:
        count_each("System calls a message", chosen, lambda command: calls(command, False))
        count_each("System calls a connection of one message", chosen, lambda command: calls(command, True))
    if options.memory:
        count_each("Bytes a connection", chosen, memory)
    if options.calls or options.memory:
        return
    for clients, size in product(options.clients, options.bytes):
        words = f"{clients:,} clients, {size:,} bytes"
        if options.count or options.misses:
            what, events = (
                ("instructions", turns.INSTRUCTIONS) if options.count else ("cache misses", turns.MISSES)
            )
            count_each(
                f"{words}: {what} in user space a message",
                chosen,
                lambda command: turns.instructions(proxying, command, clients, size, events),  # noqa: B023
            )
            continue
        results = race(chosen, clients, size, options.seconds, options.turns, 0, options.reconnect)
        print(f"\n{words}\n\n{report.echo_table(Race({}, {}, results))}", flush=True)


if __name__ == "__main__":
    main()
