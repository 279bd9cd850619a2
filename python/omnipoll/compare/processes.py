"""What a server and all the processes and threads under it use, as /proc shows it.

A server is started in a session of its own, so that its children are known by the session even
when their parent has died.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
GONE = (FileNotFoundError, ProcessLookupError)  # A process or thread that ends while it is looked at.


class Population(NamedTuple):
    """How many processes and threads a server consists of."""

    processes: int
    threads: int


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir(PROC):
        if name.isdigit():
            with suppress(*GONE):
                # The name in parentheses may hold anything: proc_pid_stat(5).
                state, _, _, its_session = (PROC / name / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state != "Z":
                    found.append(int(name))
    return found


def threads_of(process: int) -> list[str]:
    """The numbers of a process's threads; none when it has ended."""
    with suppress(*GONE):
        return os.listdir(PROC / str(process) / "task")
    return []


def population(session: int) -> Population:
    """The processes and threads of a session."""
    every = members(session)
    return Population(len(every), sum(len(threads_of(process)) for process in every))


def cpu_time(session: int) -> int:
    """Nanoseconds that the threads of a session have run for. What one thread has run for is lost
    when it ends.
    """
    total = 0
    for process in members(session):
        for thread in threads_of(process):
            with suppress(*GONE):
                total += int((PROC / str(process) / "task" / thread / "schedstat").read_text().split()[0])
    return total


def memory(session: int) -> int:
    """Bytes that the processes of a session keep for themselves: their anonymous and shared pages,
    of one that several have each its part (PSS), and the page tables. What is mapped of files, as
    the code, is not in it: its part changes with every other process that has it. Nor is the
    kernel's other memory, as sockets and stacks.
    """
    total = 0
    for process in members(session):
        with suppress(*GONE):
            pages = kilobytes(process, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:")
            total += pages + kilobytes(process, "status", "VmPTE:")
    return total * 1024


def kilobytes(process: int, file: str, *names: str) -> int:
    """The sum of these lines; a process that has begun to end has none."""
    lines = (PROC / str(process) / file).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))


def busy_time() -> int:
    """Nanoseconds that this machine's cores have been busy for, all together: proc_stat(5)."""
    first = (PROC / "stat").read_text().splitlines()[0]
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, first.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def available_memory() -> int:
    """Bytes that may still be used without swapping."""
    for line in (PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise FileNotFoundError("/proc/meminfo has no MemAvailable")
