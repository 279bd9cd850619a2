#!/usr/bin/env python3
"""Races echo servers: each of them alone with the load, in turns, forwards and backwards.

    echo.py [--clients 1,50,1000] [--bytes 64,16384] [--seconds 0.15] [--turns 15] [--only WORD,WORD]
            [--same-core] [--reconnect]

Prints for each discipline the medians and the ratio of the server's CPU time to the raw epoll
loop's, turn by turn, with its quartiles. The raw loop runs twice: how far the second is from 1 is
how far to trust the others. --only takes those whose names contain one of the words. The load has a
core of its own, where there are two; with --same-core it shares the server's, and the two take
turns, so that the server always finds all the clients' messages there: less like the world. With --reconnect
each message has a connection of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import ExitStack
from itertools import product

import build
import report
from results import Race, Result
from servers import CORES, SERVER_CORE, Server, serving

BASE = "raw epoll, C"
LIMIT = 60  # seconds for one turn

Commands = dict[str, list[str]]


def commands() -> Commands:
    """How each server is run. The first word is a program, which may not have been built."""
    servers = {
        BASE: ["echo_raw_epoll"],
        "raw epoll again, C": ["echo_raw_epoll"],
        "raw poll, C": ["echo_raw_poll"],
        "raw select, C": ["echo_raw_select"],
        "libuv, C": ["echo_libuv"],
        "libevent, C": ["echo_libevent"],
        "libev, C": ["echo_libev"],
        "mio, Rust": ["echo_mio"],
        "tokio, one thread, Rust": ["echo_tokio"],
        "compio, io_uring, Rust": ["echo_compio"],
    }
    engines = build.engines()
    best = [engine for engine in engines if engine not in ("select", "poll")]
    servers |= {f"omnipoll poller, {engine}, C": ["echo_omnipoll_poller", engine] for engine in best}
    servers |= {f"omnipoll server, {engine}, C": ["echo_omnipoll_server", engine] for engine in engines}
    servers |= {f"omnipoll server, {engine}, Rust": ["echo_omnipoll", engine] for engine in best}
    return servers


def choose(words: str) -> tuple[Commands, dict[str, str]]:
    """Those that are wanted and were built, and why others are missing."""
    wanted = {
        name: command
        for name, command in commands().items()
        if name == BASE or not words or any(word in name for word in words.split(","))
    }
    chosen, missing = build.choose(wanted)
    return chosen, {f"echo: {name}": reason for name, reason in missing.items()}


def drive(
    server: Server, clients: int, size: int, seconds: float, core: int, reconnect: bool = False
) -> dict[str, float]:
    """One turn of the load against a server."""
    load = build.program("load")
    assert load, "the load generator was built"
    options = {
        "port": server.port,
        "pid": server.pid,
        "clients": clients,
        "bytes": size,
        "seconds": seconds,
        "core": core,
        "reconnect": str(reconnect).lower(),
    }
    command = [load, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def race(
    chosen: Commands,
    clients: int,
    size: int,
    seconds: float,
    core: int,
    turns: int,
    budget: float,
    reconnect: bool = False,
) -> list[Result]:
    """All of them in one discipline: at least so many turns, and more until the time is over."""
    parameters: dict[str, int | str] = {"clients": clients, "bytes": size}
    kind = "connections" if reconnect else "echo"
    results = {name: Result(kind, name, BASE, dict(parameters)) for name in chosen}
    end = time.monotonic() + budget
    with ExitStack() as stack:
        running = {name: stack.enter_context(serving(command)) for name, command in chosen.items()}
        turn = 0
        took = 0.0
        while turn < turns or time.monotonic() + took < end:
            begin = time.monotonic()
            for name in list(chosen)[:: 1 if turn % 2 == 0 else -1]:
                results[name].add(drive(running[name], clients, size, seconds, core, reconnect))
            turn += 1
            took = time.monotonic() - begin
    return list(results.values())


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", type=numbers, default=[1, 50, 1000])
    parser.add_argument("--bytes", type=numbers, default=[64, 16384])
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", default="")
    parser.add_argument("--same-core", action="store_true")
    parser.add_argument("--reconnect", action="store_true")
    options = parser.parse_args()
    core = SERVER_CORE if options.same_core else CORES[0]
    build.build()
    chosen, missing = choose(options.only)
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    for clients, size in product(options.clients, options.bytes):
        results = race(chosen, clients, size, options.seconds, core, options.turns, 0, options.reconnect)
        print(
            f"\n{clients:,} clients, {size:,} bytes\n\n{report.echo_table(Race({}, {}, results))}", flush=True
        )


if __name__ == "__main__":
    main()
