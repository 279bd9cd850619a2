"""The comparison with other libraries: builds, measures, writes docs/race.md, race.json and the figures.

    python3 crates/omnipoll-bench/race [--quick] [--against RACE.JSON]
                                       [--only watch,growth,timers,protocols,scale,connections,proxy,echo]

Takes less than 20 minutes, with --quick about 4. --only races some and leaves what the last run
measured of the others; the document says which machine the last run was on. --against sets our own
ratios beside those of an earlier commit, of which it takes docs/race.json; it is kept as
docs/race-earlier.json until the next --against.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import build
import echo
import machine
import protocols
import proxy
import report
import scale
from results import Race, Result
from servers import CORES

DOCS = build.TREE / "docs"
EARLIER = DOCS / "race-earlier.json"


BASES = {"C": "raw epoll, C", "Rust": "raw epoll, Rust", "Python": "select.epoll, Python"}


@dataclass
class Plan:
    """Which disciplines, and how long each, in milliseconds; and when all is to end, in seconds."""

    seconds: float
    watch: tuple[tuple[int, int], ...]
    watch_ms: int
    idle: tuple[int, ...]
    idle_ms: int
    armed: tuple[int, ...]
    armed_ms: int
    echo: tuple[tuple[int, int], ...]
    echo_ms: int
    connections: tuple[int, ...]
    connections_ms: int
    proxy: tuple[tuple[int, int], ...]
    proxy_ms: int
    proxy_resources: int
    turn_seconds: float
    protocol_turns: int
    scale: tuple[tuple[int, int, str], ...]  # connections, workers, engines
    scale_seconds: float  # the most for one engine


FULL = Plan(
    seconds=1140,
    watch=((100, 1), (100, 100), (1000, 1), (1000, 100), (9000, 1), (9000, 100), (9000, 1000)),
    watch_ms=9000,
    idle=(100, 300, 1000, 3000, 10_000, 19_800, 30_000, 100_000),
    idle_ms=5000,
    armed=(10, 10_000, 1_000_000),
    armed_ms=5000,
    echo=(
        *((clients, size) for size in (64, 4096, 65_536) for clients in (1, 50, 1000)),
        *((10_000, size) for size in (64, 4096, 65_536)),
    ),
    echo_ms=40_000,
    connections=(1, 50),
    connections_ms=17_000,
    proxy=((1, 64), (50, 64), (1000, 64), (50, 16_384), (10, 65_536), (10, 1_048_576)),
    proxy_ms=28_000,
    proxy_resources=2,
    turn_seconds=0.1,
    protocol_turns=4,
    scale=((100_000, 8, "epoll,io_uring"), (10_000, 8, "epoll,io_uring,poll,select")),
    scale_seconds=120,
)
QUICK = Plan(
    seconds=230,
    watch=((100, 1), (1000, 100), (9000, 100)),
    watch_ms=2500,
    idle=(100, 1000, 10_000, 19_800),
    idle_ms=2000,
    armed=(10_000,),
    armed_ms=2000,
    echo=((1, 64), (50, 64), (1000, 64), (50, 4096)),
    echo_ms=12_000,
    connections=(50,),
    connections_ms=12_000,
    proxy=((50, 64), (10, 65_536)),
    proxy_ms=8_000,
    proxy_resources=0,
    turn_seconds=0.08,
    protocol_turns=1,
    scale=((10_000, 4, "epoll,io_uring"),),
    scale_seconds=30,
)
PROXY_CLIENTS = 50  # that connect for each message
# A watch.py is slower, and has fewer to compare.
PYTHON_WATCH = {(100, 1), (1000, 100), (9000, 1000)}
STARTED = time.monotonic()


def measured(command: list[str], race: str, **parameters: int | str) -> Iterator[Result]:
    """The results that a program prints, a line of JSON for each."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}")
    for line in done.stdout.splitlines():
        data = json.loads(line)
        base = BASES[data["contender"].rsplit(", ", 1)[-1]]
        yield Result(race, data["contender"], base, dict(parameters), data["figures"])


def watchers(pairs: int, ready: int) -> Iterator[list[str]]:
    """The programs that watch: one in each language."""
    for name in ("watch_c", "watch"):
        if path := build.program(name):
            yield [path]
    if (pairs, ready) in PYTHON_WATCH and build.python_has("omnipoll"):
        yield [str(build.PYTHON), str(build.BENCH / "race" / "watch.py")]


def race_watch(plan: Plan, race: Race) -> Iterator[Result]:
    for pairs, ready in plan.watch:
        for command in watchers(pairs, ready):
            arguments = [str(pairs), str(ready), "0", str(plan.watch_ms)]
            yield from measured(command + arguments, "watch", pairs=pairs, ready=ready)


def race_growth(plan: Plan, race: Race) -> Iterator[Result]:
    command = build.program("watch_c")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200
    for idle in plan.idle:
        if idle > most:
            race.missing[f"growth: {idle:,} idle descriptors"] = f"the limit of one process is {most + 200:,}"
        elif command:
            yield from measured([command, "10", "1", str(idle), str(plan.idle_ms)], "growth", idle=idle)


def race_timers(plan: Plan, race: Race) -> Iterator[Result]:
    for armed in plan.armed:
        for name in ("timers_c", "timers"):
            if command := build.program(name):
                yield from measured([command, str(armed), str(plan.armed_ms)], "timers", armed=armed)


def race_echo(plan: Plan, race: Race) -> Iterator[Result]:
    chosen, missing = echo.choose([])
    race.missing.update(missing)
    # The growth shows what select and poll cost; here they would take the others' time.
    chosen = {name: command for name, command in chosen.items() if not re.search(r"\b(select|poll),", name)}
    for number, (clients, size) in enumerate(plan.echo):
        # On a machine that others use, too, each gets a share of the time that is left.
        share = (plan.seconds - time.monotonic() + STARTED) / (len(plan.echo) - number)
        budget = min(plan.echo_ms / 1000, share)
        yield from echo.race(chosen, clients, size, plan.turn_seconds, CORES[0], 1, budget)


def race_connections(plan: Plan, race: Race) -> Iterator[Result]:
    chosen, _ = echo.choose([])  # the echo reports which are missing
    for clients in plan.connections:
        budget = plan.connections_ms / 1000
        yield from echo.race(chosen, clients, 64, plan.turn_seconds, CORES[0], 1, budget, reconnect=True)


def race_proxy(plan: Plan, race: Race) -> Iterator[Result]:
    chosen, missing = proxy.choose([])
    race.missing.update(missing)
    if not shutil.which("strace"):
        race.missing["proxy: system calls"] = "there is no strace"
    budget = plan.proxy_ms / 1000
    for clients, size in plan.proxy:
        yield from proxy.race(chosen, clients, size, plan.turn_seconds, 1, budget)
    yield from proxy.race(chosen, PROXY_CLIENTS, 64, plan.turn_seconds, 1, budget, reconnect=True)
    if plan.proxy_resources:
        yield from proxy.resources(chosen, plan.proxy_resources)


def race_protocols(plan: Plan, race: Race) -> Iterator[Result]:
    yield from protocols.race(plan.protocol_turns, race.missing)
    yield from protocols.count(race.missing)


def race_scale(plan: Plan, race: Race) -> Iterator[Result]:
    here = build.engines()
    for connections, workers, engines in plan.scale:
        chosen = [engine for engine in engines.split(",") if engine in here]
        yield from scale.race(chosen, workers, connections, plan.scale_seconds)


RACES = {
    "watch": race_watch,
    "growth": race_growth,
    "timers": race_timers,
    "protocols": race_protocols,
    "scale": race_scale,
    "connections": race_connections,
    "proxy": race_proxy,
    "echo": race_echo,  # last, for it takes what time is left
}


def run(plan: Plan, names: list[str]) -> Race:
    """Races what is named, and takes the rest from the run before."""
    path = DOCS / "race.json"
    race = Race(machine.describe(), build.missing())
    if set(names) != set(RACES) and path.exists():
        before = Race.load(path)
        race.results = [result for result in before.results if result.race not in names]
        race.missing |= {
            what: reason for what, reason in before.missing.items() if what.split(":")[0] not in names
        }
    for name in names:
        begin = time.monotonic()
        print(f"{name:<10}", end="", flush=True)
        found = list(RACES[name](plan, race))
        race.results += found
        race.machine["load after"] = machine.load()
        race.save(path)
        print(f"{time.monotonic() - begin:6.0f} s  {len(found)} results", flush=True)
    return race


def keep_earlier(race: Race) -> None:
    """What of an earlier run the comparison needs: our own results, and what they are compared with."""
    bases = BASES.values()
    race.results = [
        result
        for result in race.results
        if result.race in ("watch", "echo")
        and (result.contender.startswith("omnipoll") or result.contender in bases)
    ]
    race.save(EARLIER)


def main() -> None:
    parser = argparse.ArgumentParser(prog="race", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(RACES))
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(RACES):
        sys.exit(f"no such race: {', '.join(unknown)}; there are: {', '.join(RACES)}")
    if options.against:
        keep_earlier(Race.load(options.against))
    build.build()
    race = run(QUICK if options.quick else FULL, names)
    report.write(race, Race.load(EARLIER) if EARLIER.exists() else None, DOCS / "race.md")
    if build.python_has("matplotlib"):
        subprocess.run([build.PYTHON, build.BENCH / "race" / "figures.py"], check=True)
    else:
        print("no figures: there is no matplotlib in .venv (make python)")
    print(f"wrote {os.path.relpath(DOCS / 'race.md')} and what it shows")


if __name__ == "__main__":
    main()
