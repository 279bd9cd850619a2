"""What was measured, and its statistics: medians, quartiles, ratios taken turn by turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The values a quarter, a half and three quarters of the way up."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass
class Result:
    """What one contender came to in one discipline: of each figure, one value for each turn."""

    race: str
    contender: str
    parameters: dict[str, int | str] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, turn: dict[str, float]) -> None:
        for name, value in turn.items():
            self.figures.setdefault(name, []).append(value)

    def median(self, figure: str) -> float:
        return statistics.median(self.figures[figure])

    def ratio(self, base: Result, figure: str) -> tuple[float, float, float]:
        """The quartiles of the ratios to `base`, each to that of the same turn."""
        return quartiles([own / other for own, other in zip(self.figures[figure], base.figures[figure])])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown that can be read as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [header, ["-" * (width - 1) + ":" for width in widths], *rows]
    lines[1][0] = "-" * widths[0]
    pad = [str.ljust] + [str.rjust] * (len(header) - 1)
    return "\n".join(
        "| " + " | ".join(align(cell, width) for align, cell, width in zip(pad, line, widths)) + " |"
        for line in lines
    )
