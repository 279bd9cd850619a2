#!/usr/bin/env python3
"""Races echo servers: each of them alone with the load, in turns, forwards and backwards.

    echo.py [--clients 1,50,1000] [--bytes 64,16384] [--seconds 0.15] [--turns 15] [--only NAME]...
            [--same-core] [--reconnect] [--policies]
    echo.py --count [--clients ...] [--bytes ...] [--only NAME]...

Prints for each discipline the medians, and the ratio of the server's CPU time to that of the raw
epoll loop, with its quartiles. That loop runs after every four of the others, and the mean of the
two runs around a server's is what it is compared with. Each run has a process of its own, for two
of one program differ by where their memory happens to lie. The raw loop is one of the others, too:
how far it is from 1 is how far to trust them.

--only takes those whose names contain NAME, and may be given more than once. The load has a core of
its own, where there are two; with --same-core it shares the server's, and the two take turns, so
that the server always finds all the clients' messages there: less like the world. With --reconnect
each message has a connection of its own. --policies races our server in C under each wait policy, which
looks or waits for 100 us. --count has valgrind's callgrind count the server's instructions in user space
for a message.
"""

from __future__ import annotations

import argparse
from itertools import product

import build
import report
import turns
from results import Race, Result
from servers import CORES, SERVER_CORE, serving
from turns import Commands

BASE = "raw epoll, C"


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


def policies() -> Commands:
    """Our server under each wait policy, on the engines for many connections, and the raw loop."""
    found = {BASE: ["echo_raw_epoll"]}
    for engine in build.engines():
        if engine not in ("select", "poll"):
            for policy in ("balanced", "latency", "thrifty"):
                found[f"{engine}, {policy}"] = ["echo_omnipoll_server", engine, "0", policy]
    return found


def choose(names: list[str]) -> tuple[Commands, dict[str, str]]:
    """Those that are wanted, all without names, and were built; and why others are missing."""
    wanted = turns.wanted(commands(), BASE, names)
    chosen, missing = build.choose(wanted)
    return chosen, {f"echo: {name}": reason for name, reason in missing.items()}


def race(
    chosen: Commands,
    clients: int,
    size: int,
    seconds: float,
    core: int,
    least: int,
    budget: float,
    reconnect: bool = False,
) -> list[Result]:
    """All of them in one discipline: at least so many turns, and more until the time is over."""
    parameters: dict[str, int | str] = {"clients": clients, "bytes": size}
    kind = "connections" if reconnect else "echo"
    results = {name: Result(kind, name, BASE, dict(parameters)) for name in chosen}

    def run(name: str) -> turns.Figures:
        with serving(chosen[name]) as server:
            return turns.drive(server, clients, size, seconds, core, reconnect)

    turns.alternate(results, BASE, run, least, budget)
    return list(results.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", type=turns.numbers, default=[1, 50, 1000])
    parser.add_argument("--bytes", type=turns.numbers, default=[64, 16384])
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--same-core", action="store_true")
    parser.add_argument("--reconnect", action="store_true")
    parser.add_argument("--policies", action="store_true")
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    core = SERVER_CORE if options.same_core else CORES[0]
    build.build()
    chosen, missing = build.choose(policies()) if options.policies else choose(options.only)
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    for clients, size in product(options.clients, options.bytes):
        if options.count:
            print(f"\n{clients:,} clients, {size:,} bytes: instructions in user space a message\n")
            for name, command in chosen.items():
                count = turns.instructions(serving, command, clients, size)
                print(f"{name:<30}{'not counted' if count is None else f'{count:,.0f}':>12}", flush=True)
            continue
        results = race(chosen, clients, size, options.seconds, core, options.turns, 0, options.reconnect)
        print(
            f"\n{clients:,} clients, {size:,} bytes\n\n{report.echo_table(Race({}, {}, results))}", flush=True
        )


if __name__ == "__main__":
    main()
