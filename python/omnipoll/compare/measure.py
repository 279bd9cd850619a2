"""Measures one combination: a server in a process of its own, and its clients in another."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from omnipoll.compare import plan, processes
from omnipoll.compare.load import PATIENCE, TICK
from omnipoll.compare.plan import Combination, Settings
from omnipoll.compare.stage import Failed, Program, Stage

PROBES = 100
STARTING = 20  # seconds for a server to say where it listens
DYING = 2  # seconds for the system to say that a server has died
SLACK = 2 * PATIENCE  # seconds for an answer of the load, whose own patience is shorter


@dataclass(frozen=True)
class Result:
    """What one combination has cost. Times are in microseconds, memory in bytes."""

    model: str
    engine: str
    clients: int
    message_size: int
    seconds: float
    messages: int
    bytes: int
    messages_per_second: float
    p50: float
    p99: float
    first_answer_p50: float
    first_answer_p99: float
    server_cpu_per_message: float
    server_busy: float  # how many cores the server kept busy
    load_busy: float  # how busy the busiest process of clients was: near 1 it has set the pace
    others_busy: float  # how many cores everything else on this machine kept busy
    memory_empty: int
    memory_with_clients: int
    memory_per_client: float
    processes: int
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LeftOut:
    """A combination without a result, and why."""

    model: str
    engine: str
    clients: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Clients:
    """The processes that the clients are in."""

    def __init__(self, stage: Stage, address: str, settings: Settings, clients: int) -> None:
        """Starts the processes; no client connects yet."""
        self.stage = stage
        count = min(plan.loads(), clients)
        command = [sys.executable, "-m", "omnipoll.compare.load", address, str(settings.message_size)]
        self.programs = [stage.start("the load", command) for _ in range(count)]
        self.shares = [clients // count + (number < clients % count) for number in range(count)]

    def probe(self, times: int) -> list[int]:
        """How many nanoseconds one more client waits for its first answer, one after another."""
        self.programs[0].send(f"probe {times}")
        return list(self._answer(self.programs[0], SLACK)["first_answers"])

    def connect(self) -> None:
        """All the clients connect, and stay."""
        for program, share in zip(self.programs, self.shares):
            program.send(f"connect {share}")
        for program in self.programs:
            self._answer(program, SLACK + sum(self.shares) / 50)

    def run(self, seconds: float) -> list[dict[str, Any]]:
        """What each process says of the exchange."""
        for program in self.programs:
            program.send(f"run {seconds}")
        reports = [self._answer(program, seconds + SLACK) for program in self.programs]
        if lost := [reason for report in reports for reason in report["lost"]]:
            self._fail(f"{len(lost)} of {sum(self.shares):,} clients were lost: {lost[0]}")
        return reports

    def _answer(self, program: Program, seconds: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.stage.line_of(program, seconds))
        if "error" in answer:
            self._fail(answer["error"])
        return answer

    def _fail(self, words: str) -> None:
        # When a server dies, its clients notice before its parent does.
        deadline = time.monotonic() + DYING
        while (left := deadline - time.monotonic()) > 0:
            self.stage.listen(left)
        raise Failed(words)


def run_one(combination: Combination, settings: Settings) -> Result:
    """Runs it. Failed, where it could not be measured."""
    with Stage() as stage:
        server = stage.start("the server", settings.command(combination))
        address = address_in(stage.line_of(server, STARTING))
        clients = Clients(stage, address, settings, combination.clients)
        clients.probe(1)  # What is made for the first client is no client's cost.
        wait_until_quiet(server)
        empty = processes.memory(server.session)
        clients.connect()
        first_answers = Counter(clients.probe(PROBES))
        wait_until_quiet(server)
        busy = processes.busy_time()
        cpu = processes.cpu_time(server.session)
        begin = time.monotonic_ns()
        reports = clients.run(settings.seconds)
        cpu = processes.cpu_time(server.session) - cpu
        others = processes.busy_time() - busy - cpu - sum(report["cpu"] for report in reports)
        others_busy = max(0.0, others / (time.monotonic_ns() - begin))
        memory = processes.memory(server.session)
        population = processes.population(server.session)

    messages = sum(report["messages"] for report in reports)
    elapsed = max(report["nanoseconds"] for report in reports)
    latencies: Counter[int] = Counter()
    for report in reports:
        latencies.update(dict(report["latencies"]))
    return Result(
        *combination,
        message_size=settings.message_size,
        seconds=elapsed / 1e9,
        messages=messages,
        bytes=sum(report["bytes"] for report in reports),
        messages_per_second=messages / elapsed * 1e9,
        p50=percentile(latencies, 50) * TICK / 1e3,
        p99=percentile(latencies, 99) * TICK / 1e3,
        first_answer_p50=percentile(first_answers, 50) / 1e3,
        first_answer_p99=percentile(first_answers, 99) / 1e3,
        server_cpu_per_message=cpu / messages / 1e3,
        server_busy=cpu / elapsed,
        load_busy=max(report["cpu"] / report["nanoseconds"] for report in reports),
        others_busy=others_busy,
        memory_empty=empty,
        memory_with_clients=memory,
        memory_per_client=(memory - empty) / combination.clients,
        processes=population.processes,
        threads=population.threads,
    )


def address_in(line: str) -> str:
    """The address at the end of a server's first line, as in 'listening on 127.0.0.1:7000'."""
    address = line.split()[-1] if line.strip() else ""
    if not address.rpartition(":")[2].isdigit():
        raise Failed(f"the server has printed no address, but {line!r}")
    return address


def wait_until_quiet(server: Program) -> None:
    """Waits, a second at most, until the processes and threads of clients that left have ended."""
    before, deadline = processes.population(server.session), time.monotonic() + 1
    while time.monotonic() < deadline:
        time.sleep(0.02)
        after = processes.population(server.session)
        if after == before:
            return
        before = after


def percentile(counts: Counter[int], percent: int) -> int:
    """The smallest value that so many percent of the values do not exceed."""
    rank = -(-sum(counts.values()) * percent // 100)
    for value, count in sorted(counts.items()):
        rank -= count
        if rank <= 0:
            return value
    raise Failed("no message came back")
