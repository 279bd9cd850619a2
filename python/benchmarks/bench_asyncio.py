"""What an operation of an asyncio program costs on each event loop, side by side, in one run.

Each loop runs in a process of its own; its clients are in this process. Both are pinned to one core. What
is measured is the CPU time of the loop's process, for one operation, in rounds: every loop has a turn in
each, forwards and backwards. Printed are the medians, in microseconds, and for each engine of ours the
median of the rounds' ratios to the best of the other loops: below 1 is less CPU time. A loop that is not
installed, or can't do what a row measures, is named with the reason.

    python bench_asyncio.py [--only streams,TLS] [--loops asyncio,uvloop,omnipoll-epoll] [--rounds 11]
        [--malloc warm,cold] [--scale 1.0] [--json FILE]
    python bench_asyncio.py --count      # instructions of an operation, by callgrind
    python bench_asyncio.py --calls      # system calls of an operation, by strace
    python bench_asyncio.py --memory     # what 10,000 idle connections cost
    python bench_asyncio.py --ended      # what 100,000 connections leave that were opened and closed

With "cold" malloc is as glibc has it: each block of 128 KiB and more is a mapping of its own, which loops
that allocate 256 KiB for each read pay for. "warm" is what it does in a program that has freed a bigger
block once; MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ bring it about.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

from asyncio_rows import counting, loops, memory, rows, turns
from asyncio_rows.contender import CORE, Unable

WIDTH = 13
Figures = dict[str, Any]


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=words, default=[], help="rows with one of these in their names")
    parser.add_argument("--loops", type=words, default=list(loops.NAMES), help="by default all")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--malloc", type=words, default=["warm", "cold"])
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the operations of a turn")
    parser.add_argument("--count", action="store_true", help="instructions instead of times")
    parser.add_argument("--calls", action="store_true", help="system calls instead of times")
    parser.add_argument("--memory", action="store_true", help="idle connections instead of times")
    parser.add_argument("--ended", action="store_true", help="what closed connections leave instead of times")
    parser.add_argument("--connections", type=int, help="of --memory (10,000) and --ended (100,000)")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    options = parser.parse_args()
    unknown = set(options.loops) - set(loops.NAMES)
    if unknown:
        parser.error(f"no loop is named {', '.join(sorted(unknown))}; there are {', '.join(loops.NAMES)}")
    return options


def present(names: list[str], result: Figures) -> list[str]:
    """Those of the loops that can be made; of the others, why not."""
    absent = {name: loops.why_absent(name) for name in names}
    result["absent"] = {name: reason for name, reason in absent.items() if reason}
    here = [name for name in names if not absent[name]]
    result["versions"] = {name: loops.version(name) for name in here}
    for name, reason in result["absent"].items():
        print(f"not here: {name} ({reason})")
    return here


def certificate(folder: str) -> str:
    """A file with a new key and a certificate that it has signed itself."""
    path = Path(folder) / "certificate.pem"
    key = Path(folder) / "key.pem"
    what = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ("openssl", "req", *what.split(), "-keyout", str(key), "-out", str(path))
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(key.read_text() + path.read_text())
    return str(path)


def line(name: str, values: list[str], note: str = "") -> None:
    print(
        f"{name:32}" + "".join(f"{value:>{WIDTH}}" for value in values) + (f"  {note}" if note else ""),
        flush=True,
    )


def header(title: str, names: list[str], note: str = "") -> None:
    print(f"\n{title}")
    line("", [name.replace("omnipoll-", "our ") for name in names], note)


def say_unable(unable: dict[str, str]) -> None:
    for loop, reason in unable.items():
        print(f"    {loop}: {reason}")


def times(options: argparse.Namespace, here: list[str], chosen: list[rows.Row], path: str) -> list[Figures]:
    ours = [name for name in here if loops.is_ours(name)]
    results = []
    for malloc in options.malloc:
        header(f"us of CPU an operation, malloc {malloc}", here, "best of the others; ours to it")
        for row in chosen:
            operations = max(row.clients, int(row.operations * options.scale))
            outcome = turns.measure(row, here, malloc, options.rounds, operations, path)
            results.append(outcome.values())
            best = outcome.best_of_others()
            measured = [name for name in ours if name in outcome.turns] if best else []
            ratios = " ".join(f"{outcome.ratio(name, best):.2f}" for name in measured)
            medians = [
                f"{outcome.median(name) / 1000:.2f}" if name in outcome.turns else "-" for name in here
            ]
            line(row.name, medians, f"{best} {ratios}")
            say_unable(outcome.unable)
    return results


def table(
    title: str,
    here: list[str],
    names: list[str],
    measure: Callable[[str, str], Any],
    show: Callable[[Any], str],
) -> list[Figures]:
    """A line for each name, and what was measured of each loop in it."""
    header(title, here)
    results = []
    for name in names:
        measured: Figures = {}
        unable = {}
        for loop in here:
            try:
                measured[loop] = measure(name, loop)
            except Unable as error:
                unable[loop] = str(error)
        line(name, [show(measured[loop]) if loop in measured else "-" for loop in here])
        say_unable(unable)
        results.append({"row": name, "measured": measured, "unable": unable})
    return results


def counted(options: argparse.Namespace, here: list[str], chosen: list[rows.Row], path: str) -> list[Figures]:
    def measure(name: str, loop: str) -> float:
        row = rows.by_name(name)
        return counting.instructions(loop, row, int(row.operations * options.scale), path)

    return table(
        "instructions an operation, by callgrind",
        here,
        [row.name for row in chosen],
        measure,
        "{:,.0f}".format,
    )


def called(options: argparse.Namespace, here: list[str], chosen: list[rows.Row], path: str) -> list[Figures]:
    def measure(name: str, loop: str) -> counting.Counts:
        row = rows.by_name(name)
        return counting.system_calls(loop, row, int(row.operations * options.scale), path)

    results = table(
        "system calls an operation, by strace",
        here,
        [row.name for row in chosen],
        measure,
        lambda calls: f"{sum(calls.values()):.2f}",
    )
    for result in results:
        print(f"\n{result['row']}")
        for loop, calls in result["measured"].items():
            named = sorted(calls.items(), key=lambda pair: -pair[1])
            print(f"    {loop}: " + ", ".join(f"{name} {number:.2f}" for name, number in named))
    return results


def remembered(
    title: str, here: list[str], kinds: dict[str, str], look: Callable[[str], dict[str, float]]
) -> list[Figures]:
    """What one look at each loop has found, a line for each kind of it."""
    found: dict[str, dict[str, float]] = {}

    def measure(name: str, loop: str) -> float:
        if loop not in found:
            found[loop] = look(loop)
        return found[loop][kinds[name]]

    return table(title, here, list(kinds), measure, "{:.2f}".format)


def idle(options: argparse.Namespace, here: list[str]) -> list[Figures]:
    connections = options.connections or 10_000
    operations = int(memory.ECHO.operations * options.scale)
    kinds = {
        "KiB a connection": "kib",
        "us of CPU an echo, without them": "alone_us",
        "us of CPU an echo, beside them": "beside_us",
    }
    title = f"{connections:,} idle connections"
    return remembered(title, here, kinds, lambda loop: memory.idle(loop, connections, operations))


def ended(options: argparse.Namespace, here: list[str]) -> list[Figures]:
    connections = options.connections or 100_000
    kinds = {"KiB more than before": "kib", "descriptors more than before": "descriptors"}
    title = f"{connections:,} connections opened, used and closed"
    return remembered(title, here, kinds, lambda loop: memory.ended(loop, connections))


def main() -> None:
    options = parse()
    os.sched_setaffinity(0, {CORE})
    result: Figures = {
        "command": sys.argv,
        "python": sys.version,
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "processor": platform.processor() or platform.machine(),
    }
    print(f"Python {platform.python_version()}, {result['libc']}, {result['system']}")
    here = present(options.loops, result)
    chosen = rows.named(options.only)
    with tempfile.TemporaryDirectory() as folder:
        path = certificate(folder) if any(row.tls for row in chosen) else ""
        if options.count and not counting.missing("valgrind"):
            result["instructions"] = counted(options, here, chosen, path)
        elif options.count:
            print(counting.missing("valgrind"))
        if options.calls and not counting.missing("strace"):
            result["calls"] = called(options, here, chosen, path)
        elif options.calls:
            print(counting.missing("strace"))
        if options.memory:
            result["memory"] = idle(options, here)
        if options.ended:
            result["ended"] = ended(options, here)
        if not (options.count or options.calls or options.memory or options.ended):
            result["times"] = times(options, here, chosen, path)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
