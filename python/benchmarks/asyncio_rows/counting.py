"""Instructions by callgrind and system calls by strace, of one operation.

Both count a whole process. It is run twice, with few operations and with more; the difference is what the
operations cost, without the interpreter's start.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from asyncio_rows.contender import Contender, Unable
from asyncio_rows.rows import Row

FEW, MORE = 20, 5  # fractions of a turn's operations
VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")

Counts = dict[str, float]


def instructions(loop: str, row: Row, operations: int, certificate: str) -> float:
    def collected(number: int) -> int:
        with Contender(loop, row, "warm", certificate, VALGRIND) as contender:
            contender.run(number)
            found = re.search(r"Collected : (\d+)", contender.end())
        if not found:
            raise Unable("valgrind counted nothing")
        return int(found[1])

    few, more = sizes(operations)
    return (collected(more) - collected(few)) / (more - few)


def system_calls(loop: str, row: Row, operations: int, certificate: str) -> Counts:
    def made(number: int) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "calls"
            wrapper = ("strace", "-c", "-f", "-U", "calls,name", "-o", str(path))
            with Contender(loop, row, "warm", certificate, wrapper) as contender:
                contender.run(number)
                contender.end()
            counted = re.findall(r"^ *(\d+) (\w+)$", path.read_text(), re.M)
        return {name: int(number) for number, name in counted if name != "total"}

    few, more = sizes(operations)
    before, after = made(few), made(more)
    calls = {name: (number - before.get(name, 0)) / (more - few) for name, number in after.items()}
    return {name: number for name, number in calls.items() if number >= 0.01}


def sizes(operations: int) -> tuple[int, int]:
    few = max(10, operations // FEW)
    return few, max(few + 10, operations // MORE)


def missing(program: str) -> str:
    return "" if shutil.which(program) else f"{program} is not here"
