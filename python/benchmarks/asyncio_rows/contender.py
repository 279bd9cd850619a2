"""One loop in one row: the process that is measured, and the load on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from asyncio_rows import load
from asyncio_rows.rows import Row

# The measured process and its clients share a core. Waking a core that sleeps costs the one that wakes it
# more than a loop does, and would hide what the loops differ in.
CORE = min(os.sched_getaffinity(0))
FOLDER = Path(__file__).resolve().parent.parent
MALLOC: dict[str, dict[str, str]] = {
    # What glibc's malloc does by default with blocks of 128 KiB and more: a mapping of its own for each.
    "cold": {},
    # What it sets itself once such a mapping of 4 MiB was freed: it takes smaller blocks from its heap, and
    # doesn't give the heap's end back to the system after each.
    "warm": {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)},
}


class Unable(Exception):
    """This loop can't do what the row measures."""


def cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, all of its threads', as `clock_getcpuclockid(3)` makes it."""
    return (~pid << 3) | 2


class Contender:
    """Usable with `with`; `wrapper` is a command that runs the process, such as strace."""

    def __init__(
        self,
        loop: str,
        row: Row,
        malloc: str = "warm",
        certificate: str = "",
        wrapper: tuple[str, ...] = (),
    ) -> None:
        command = (sys.executable, "-m", "asyncio_rows.worker", loop, row.program, str(CORE))
        self.process = subprocess.Popen(
            (*wrapper, *command, *((certificate,) if row.tls else ())),
            cwd=FOLDER,
            env={**os.environ, **MALLOC[malloc], "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if wrapper else subprocess.DEVNULL,
            text=True,
        )
        self.pid = 0
        self.port = 0
        try:
            self.run = self._start(row)
        except BaseException:
            self.end()
            raise

    def _start(self, row: Row) -> load.Load:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Unable(f"ended with {self.process.wait()}")
        first = json.loads(line)
        self.pid = first["pid"]
        if "error" in first:
            raise Unable(first["error"])
        if not row.load:
            return self._run_inside
        try:
            self.port = first["port"]
            return load.LOADS[row.load](row, self.port)
        except OSError as error:
            raise Unable(str(error)) from error

    def _run_inside(self, operations: int) -> None:
        assert self.process.stdin
        assert self.process.stdout
        print(operations, file=self.process.stdin, flush=True)
        if not self.process.stdout.readline():
            raise Unable(f"ended with {self.process.wait()}")

    def cpu_ns(self, operations: int) -> float:
        """The CPU time of the process for one operation, the mean of so many."""
        clock = cpu_clock(self.pid)
        try:
            before = time.clock_gettime_ns(clock)
            self.run(operations)
            return (time.clock_gettime_ns(clock) - before) / operations
        except OSError as error:
            raise Unable(str(error)) from error

    def end(self) -> str:
        """Ends the process, and returns what a wrapper has said."""
        try:
            os.kill(self.pid or self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            _, said = self.process.communicate(timeout=load.LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        return said or ""

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
