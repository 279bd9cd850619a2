"""Servers as processes: started on a core of their own, ended by closing their standard input."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CORES = sorted(os.sched_getaffinity(0))
# The first core takes most interrupts, so the server is not on it.
SERVER_CORE = CORES[-1]


@dataclass
class Server:
    port: int
    pid: int


@contextmanager
def serving(command: list[str], core: int | None = SERVER_CORE) -> Iterator[Server]:
    """Runs a server, which prints its port, or an address, and ends with its standard input or SIGTERM.
    Without a core it has all."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, CORES if core is None else {core}),
    )
    assert process.stdin and process.stdout
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command[0]} ended without printing its port")
        yield Server(int(re.findall(rb"\d+", line)[-1]), process.pid)
    finally:
        process.stdin.close()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
