"""Runs CPython's own tests of asyncio on another loop.

    python asyncio_conformance [--loop MODULE:CLASS] [--engine ENGINE] [CASE...]

All cases run on epoll, and those that do input and output on io_uring too, where it is available; some of
CPython's cases ask for select and poll. Each case fails only if it does so again, alone, twice. What fails
with the standard library's loop as well says nothing of ours. What is left must be listed in
asyncio_deviations.txt with its reason, and what is listed there must fail.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from unittest import TestCase

import cases
import deviations
import substitution
from processes import FAILED, PASSED, SKIPPED, Outcome, Runner, Task

import omnipoll

OURS = "omnipoll.aio:EventLoop"
AGAIN = 2  # How often what is not expected is tried again,
CHANCE = 20  # unless there is more of it than chance brings about.


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="asyncio_conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--loop", default=OURS, help="module:class")
    parser.add_argument("--engine", choices=("epoll", "io_uring", "poll", "select"), help="only this one")
    parser.add_argument("--at-once", type=int, default=2, help="how many cases run at a time")
    parser.add_argument("--limit", type=float, default=30, help="seconds for a case")
    parser.add_argument("--verbose", action="store_true", help="print why each case failed, listed or not")
    parser.add_argument("case", nargs="*", help="a module, module.class or module.class.case, or a pattern")
    return parser.parse_args()


def engines() -> list[str]:
    """Those that the cases run on."""
    try:
        omnipoll.Poller("io_uring").close()
    except OSError:
        return ["epoll"]
    return ["epoll", "io_uring"]


class Conformance:
    """The cases, and what they did."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.is_ours = options.loop == OURS
        self.loop_class = substitution.load(options.loop)
        self.tasks = dict(self.every(cases.find(options.case)))
        listed = deviations.read() if self.is_ours else {}
        self.listed = {name: reason for name, reason in listed.items() if name in self.tasks}
        self.not_there = [name for name in listed if name not in self.tasks and not options.case]

    def every(self, found: dict[str, TestCase]) -> Iterator[tuple[str, Task]]:
        """What is to run, by its name."""
        if not self.is_ours:
            yield from ((name, self.task(case)) for name, case in found.items())
            return
        first, *others = [self.options.engine] if self.options.engine else engines()
        yield from ((name, self.task(case, first)) for name, case in found.items())
        for engine in others:
            some = {name: case for name, case in found.items() if cases.has_to_do_with_engine(name)}
            yield from ((f"{name}[{engine}]", self.task(case, engine)) for name, case in some.items())

    def task(self, case: TestCase, engine: str = "") -> Task:
        return Task(case, lambda: substitution.substitute(self.loop_class, engine))

    def run(self, tasks: dict[str, Task], at_once: int) -> dict[str, Outcome]:
        return dict(Runner(at_once, self.options.limit).run(tasks))

    def is_expected(self, name: str, outcome: Outcome) -> bool:
        return (outcome.state == PASSED) == (name not in self.listed)

    def judge(self) -> Verdict:
        outcomes = self.run(self.tasks, self.options.at_once)
        unexpected = self.unexpected(outcomes)
        for _ in range(AGAIN):
            tried = [name for name in unexpected if outcomes[name].state != SKIPPED]
            if len(tried) > CHANCE:
                break
            outcomes.update(self.run({name: self.tasks[name] for name in tried}, 1))
            unexpected = self.unexpected(outcomes)
        standard = self.run_with_standard_loop(name for name in unexpected if name not in self.listed)
        return Verdict(outcomes, self.listed, unexpected, standard)

    def unexpected(self, outcomes: dict[str, Outcome]) -> list[str]:
        return [name for name, outcome in outcomes.items() if not self.is_expected(name, outcome)]

    def run_with_standard_loop(self, names: Iterable[str]) -> dict[str, Outcome]:
        """What is skipped too: with that loop it may not be."""
        tasks = {name: Task(self.tasks[name].case, lambda: None) for name in names}
        return self.run(tasks, self.options.at_once)


class Verdict:
    """What the outcomes mean."""

    def __init__(
        self,
        outcomes: dict[str, Outcome],
        listed: dict[str, str],
        unexpected: list[str],
        standard: dict[str, Outcome],
    ) -> None:
        self.outcomes = outcomes
        self.deviating = [name for name in listed if outcomes[name].state != PASSED]
        self.stale = [name for name in unexpected if name in listed]
        self.alike = [name for name, outcome in standard.items() if outcome.state == outcomes[name].state]
        self.bad = [name for name in standard if name not in self.alike]

    def is_good(self) -> bool:
        return not self.bad and not self.stale

    def report(self, verbose: bool) -> None:
        for name in self.bad + (self.deviating if verbose else []):
            state, words, _ = self.outcomes[name]
            listed = "LISTED" if name in self.deviating else "NOT LISTED"
            print(f"\n{listed}, {state}: {name}\n{words.rstrip()}")
        for name in self.stale:
            print(f"LISTED, but it passes: {name}")
        for name in self.alike:
            state, words, _ = self.outcomes[name]
            if state == FAILED:
                print(f"fails with the standard library's loop here, too: {name}")

    def counts(self) -> str:
        passed = sum(outcome.state == PASSED for outcome in self.outcomes.values())
        skipped = sum(self.outcomes[name].state == SKIPPED for name in self.alike)
        on_ours = sum(outcome.loops > 0 for outcome in self.outcomes.values())
        failing = sum(self.outcomes[name].state == FAILED for name in self.alike)
        print(
            f"{len(self.outcomes)} cases, {on_ours} of which have made a loop; {len(self.deviating)} deviate,"
            f" {failing} fail with the standard library's loop here, too"
        )
        wrong = len(self.bad) + len(self.stale)
        return f"{passed - len(self.stale)} passed, {wrong} failed, {skipped} skipped"


def main() -> int:
    if not cases.are_there():
        print("this Python comes without its tests")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    begin = time.perf_counter()
    conformance = Conformance(arguments())
    gc.freeze()
    verdict = conformance.judge()
    verdict.report(conformance.options.verbose)
    for name in conformance.not_there:
        print(f"LISTED, but there is no such case: {name}")
    seconds = time.perf_counter() - begin
    print(f"Python {platform.python_version()}, {conformance.options.loop}, {seconds:.0f} s")
    print(verdict.counts())
    return 0 if verdict.is_good() and not conformance.not_there else 1


if __name__ == "__main__":
    sys.exit(main())
