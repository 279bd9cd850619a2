"""All loops in one row, in turns, and what follows from their times."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import Any

from asyncio_rows.contender import Contender, Unable
from asyncio_rows.loops import is_ours
from asyncio_rows.rows import Row


@dataclass
class Outcome:
    """The turns of each loop in one row; those that can't do it, with what they said."""

    row: Row
    malloc: str
    turns: dict[str, list[float]] = field(default_factory=dict)  # nanoseconds of CPU for an operation
    unable: dict[str, str] = field(default_factory=dict)

    def median(self, loop: str) -> float:
        return statistics.median(self.turns[loop])

    def best_of_others(self) -> str:
        others = [loop for loop in self.turns if not is_ours(loop)]
        return min(others, key=self.median, default="")

    def ratio(self, loop: str, base: str) -> float:
        """The median of the rounds' own ratios: both turns of a round saw the machine in the same mood."""
        return statistics.median(a / b for a, b in zip(self.turns[loop], self.turns[base]))

    def values(self) -> dict[str, Any]:
        best = self.best_of_others()
        return {
            "row": self.row.name,
            "malloc": self.malloc,
            "cpu_us": {loop: self.median(loop) / 1000 for loop in self.turns},
            "best_of_others": best,
            "ratio_to_best": {loop: self.ratio(loop, best) for loop in self.turns} if best else {},
            "turns_ns": self.turns,
            "unable": self.unable,
        }


def measure(
    row: Row, loops: list[str], malloc: str, rounds: int, operations: int, certificate: str
) -> Outcome:
    """Every loop has a turn in each round, forwards and backwards. The first round is not counted."""
    outcome = Outcome(row, malloc)
    with contextlib.ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for loop in loops:
            try:
                contender = Contender(loop, row, malloc, certificate)
            except Unable as error:
                outcome.unable[loop] = str(error)
            else:
                contenders[loop] = stack.enter_context(contender)
                outcome.turns[loop] = []
        for number in range(rounds + 1):
            for loop in list(contenders)[:: 1 if number % 2 == 0 else -1]:
                try:
                    took = contenders[loop].cpu_ns(operations)
                except Unable as error:
                    outcome.unable[loop] = str(error)
                    del contenders[loop], outcome.turns[loop]
                else:
                    if number > 0:
                        outcome.turns[loop].append(took)
    return outcome
