"""Runs CPython's own tests of asyncio on another loop.

    python asyncio_conformance [--loop MODULE:CLASS] [--engine ENGINE] [CASE...]

Each case fails only if it does so again, alone, twice. What fails with the standard library's loop as well
says nothing of ours. What is left must be listed in asyncio_deviations.txt with its reason, and what is
listed there must fail.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from collections.abc import Iterable

import cases
import deviations
import substitution
from processes import FAILED, PASSED, SKIPPED, Outcome, Runner

AGAIN = 2  # How often what is not expected is tried again,
CHANCE = 20  # unless there is more of it than chance brings about.


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="asyncio_conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--loop", default="omnipoll.aio:EventLoop", help="module:class")
    parser.add_argument("--engine", default="epoll", help="what the class is called with; may be empty")
    parser.add_argument("--at-once", type=int, default=2, help="how many cases run at a time")
    parser.add_argument("--limit", type=float, default=30, help="seconds for a case")
    parser.add_argument("--verbose", action="store_true", help="print why each case failed, listed or not")
    parser.add_argument("case", nargs="*", help="a module, module.class or module.class.case, or a pattern")
    return parser.parse_args()


class Conformance:
    """The cases, and what they did."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cases = cases.find(options.case)
        loop_class = substitution.load(options.loop)
        self.ours = lambda: substitution.substitute(loop_class, options.engine)
        listed = deviations.read() if options.loop.startswith("omnipoll.") else {}
        self.listed = {name: reason for name, reason in listed.items() if name in self.cases}
        self.not_there = [name for name in listed if name not in self.cases and not options.case]

    def run(self, names: Iterable[str], at_once: int) -> dict[str, Outcome]:
        runner = Runner(self.ours, at_once, self.options.limit)
        return dict(runner.run((name, self.cases[name]) for name in names))

    def run_with_standard_loop(self, names: Iterable[str]) -> dict[str, Outcome]:
        runner = Runner(lambda: None, self.options.at_once, self.options.limit)
        return dict(runner.run((name, self.cases[name]) for name in names))

    def is_expected(self, name: str, outcome: Outcome) -> bool:
        return (outcome.state == PASSED) == (name not in self.listed)

    def judge(self) -> Verdict:
        outcomes = self.run(self.cases, self.options.at_once)
        unexpected = [name for name, outcome in outcomes.items() if not self.is_expected(name, outcome)]
        # A skipped case may be one that the standard library's loop is not skipped in.
        for _ in range(AGAIN):
            tried = [name for name in unexpected if outcomes[name].state != SKIPPED]
            if len(tried) > CHANCE:
                break
            outcomes.update(self.run(tried, 1))
            unexpected = [name for name in unexpected if not self.is_expected(name, outcomes[name])]
        standard = self.run_with_standard_loop(name for name in unexpected if name not in self.listed)
        return Verdict(outcomes, self.listed, unexpected, standard)


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
        print("this Python comes without its tests\n0 passed, 0 failed, 1 skipped")
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
