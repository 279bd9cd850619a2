"""What is measured: the combinations, and which of them this machine can't run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from omnipoll import info
from omnipoll.compare import processes

MODELS = ("reactor", "cores", "thread", "fork", "prefork")
SPARE = 100  # descriptors, processes and threads besides those of the clients
LARGEST_MESSAGE = 64 * 1024  # Goes through without the client reading meanwhile.

DESCRIPTORS = {"thread": 4, "fork": 2}  # in one process, for each client; elsewhere 1
ROOM_FOR_PROBES = 128  # clients beyond those that stay, so that a probe never waits for another's end
BOUNDED = ("thread", "fork")
BOUND = 512  # clients that a server takes under these by default


class Combination(NamedTuple):
    """One way of serving so many clients."""

    model: str
    engine: str
    clients: int

    def __str__(self) -> str:
        """As 'reactor on epoll, 10 clients'."""
        clients = "1 client" if self.clients == 1 else f"{self.clients:,} clients"
        return f"{self.model} on {self.engine}, {clients}"


@dataclass(frozen=True)
class Settings:
    """How each combination is measured."""

    models: tuple[str, ...] = MODELS
    engines: tuple[str, ...] = info.ENGINES
    clients: tuple[int, ...] = (1, 10, 100, 1000)
    message_size: int = 64
    seconds: float = 1.0
    server: str | None = None

    def command(self, combination: Combination) -> list[str]:
        """The command that starts the server."""
        program = [self.server] if self.server else [sys.executable, "-m", "omnipoll.compare.echo"]
        options = {
            "--model": combination.model,
            "--engine": combination.engine,
            "--address": "127.0.0.1:0",
        }
        if combination.model in BOUNDED and combination.clients + ROOM_FOR_PROBES > BOUND:
            options["--max-clients"] = str(combination.clients + ROOM_FOR_PROBES)
        return [*program, *(word for option in options.items() for word in option)]

    def combinations(self) -> list[Combination]:
        """All of them, those with few clients first."""
        return [
            Combination(model, engine, clients)
            for clients in sorted(self.clients)
            for model in self.models
            for engine in self.engines
        ]


def loads() -> int:
    """How many processes the clients are in: two where the server still has two cores then."""
    return 2 if len(os.sched_getaffinity(0)) >= 4 else 1


class Obstacles:
    """Finds out why a combination can't run here, before it is tried."""

    def __init__(self) -> None:
        """Looks at this machine."""
        limits = info.limits()
        self.descriptors = limits["descriptors at most"]
        self.tasks = limits["processes and threads"]
        self.engines = {name: info.engine(name) for name in info.ENGINES}
        self.client_memory: dict[tuple[str, str], float] = {}

    def learn(self, combination: Combination, memory: float) -> None:
        """Keeps what a client has cost, for the combinations with more of them."""
        self.client_memory[combination.model, combination.engine] = memory

    def to(self, combination: Combination) -> str | None:
        """The reason, or None."""
        return next(filter(None, self._every(combination)), None)

    def _every(self, combination: Combination) -> Iterable[str | None]:
        model, engine, clients = combination
        yield self.engines[engine]["reason"]
        needed = clients * DESCRIPTORS.get(model, 1) + SPARE
        if self.descriptors is not None and needed > self.descriptors:
            yield f"needs {needed:,} descriptors in a process, and may have {self.descriptors:,} (ulimit -Hn)"
        needed = clients + SPARE
        if model in BOUNDED and self.tasks is not None and needed > self.tasks:
            kind = "threads" if model == "thread" else "processes"
            yield f"needs {needed:,} {kind}, and there may be {self.tasks:,} (ulimit -u, pids.max)"
        needed = int(self.client_memory.get((model, engine), 0) * clients)
        if needed > 0.8 * processes.available_memory():
            yield f"would need about {needed / 1e9:.1f} GB of memory"
