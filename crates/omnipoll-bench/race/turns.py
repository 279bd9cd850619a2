"""Contenders measured in turns: each of them alone with the load, forwards and backwards.

The contender that the others are compared with, the base, runs after every few of them, and the mean of the
two runs around one is what it is compared with. Each run has a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Callable

import build
from results import OF_BASE, Result
from servers import CORES, Server

LIMIT = 60  # seconds for one turn
# The base runs after so many others: a machine that others use, too, is another one a little later.
BETWEEN = 4
COUNTED = 1.0, 4.0  # seconds of the turns whose instructions are counted
# Callgrind's names for them, and for reads and writes that the processor's first cache does not have.
INSTRUCTIONS = ("Ir",)
MISSES = ("D1mr", "D1mw")

Commands = dict[str, list[str]]
Figures = dict[str, float]
Run = Callable[[list[str]], AbstractContextManager[Server]]  # runs a command


def wanted(contenders: Commands, base: str, names: list[str]) -> Commands:
    """The base, and those with one of the names in theirs; all without names."""
    return {
        name: command
        for name, command in contenders.items()
        if name == base or not names or any(part in name for part in names)
    }


def drive(
    server: Server, clients: int, size: int, seconds: float, core: int, reconnect: bool = False
) -> Figures:
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
    figures: Figures = json.loads(done.stdout)
    return figures


def alternate(
    results: dict[str, Result], base: str, run: Callable[[str], Figures], turns: int, budget: float
) -> None:
    """All of them in one discipline: at least so many turns, and more until the time is over."""
    others = [name for name in results if name != base]

    def run_base() -> float:
        own = run(base)
        results[base].add(own)
        return own["cpu_ns"]

    end = time.monotonic() + budget
    turn = 0
    took = 0.0
    before = run_base()
    while turn < turns or time.monotonic() + took < end:
        begin = time.monotonic()
        order = others[:: 1 if turn % 2 == 0 else -1]
        for first in range(0, len(order), BETWEEN):
            some = {name: run(name) for name in order[first : first + BETWEEN]}
            after = run_base()
            for name, own in some.items():
                results[name].add(own | {OF_BASE + "cpu_ns": (before + after) / 2})
            before = after
        turn += 1
        took = time.monotonic() - begin


def instructions(
    run: Run, command: list[str], clients: int, size: int, events: tuple[str, ...] = INSTRUCTIONS
) -> float | None:
    """What a message takes of them, or of other events of callgrind's."""

    def messages(server: Server, seconds: float) -> float:
        return drive(server, clients, size, seconds, CORES[0])["messages"]

    return count(run, command, COUNTED, messages, events)


def count(
    run: Run,
    command: list[str],
    amounts: tuple[float, float],
    messages: Callable[[Server, float], float],
    events: tuple[str, ...] = INSTRUCTIONS,
) -> float | None:
    """Instructions in user space for a message, or other events of callgrind: a longer turn less a shorter
    one, so that starting, connecting and ending are not counted. None of a server that valgrind can't run,
    as on io_uring."""
    counted = []
    with tempfile.NamedTemporaryFile("r") as log:
        tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log.name}"]
        if events != INSTRUCTIONS:
            tool.append("--cache-sim=yes")
        for amount in amounts:
            with run(tool + command) as server:
                made = messages(server, amount)
            lines = dict(re.findall(r"(Events|Collected) +: (.*)", Path(log.name).read_text()))
            if "Collected" not in lines:
                return None
            collected = dict(zip(lines["Events"].split(), map(int, lines["Collected"].split())))
            counted.append((sum(collected[event] for event in events), made))
    (less, few), (more, many) = counted
    return float(more - less) / (many - few)


def numbers(text: str) -> list[int]:
    """Of an option, separated by commas."""
    return [int(word) for word in text.split(",")]
