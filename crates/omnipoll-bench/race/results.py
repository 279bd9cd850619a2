"""What was measured, and its statistics: medians, quartiles, ratios taken turn by turn."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Before the name of a figure: the base's, measured nearby.
OF_BASE = "base "


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The values a quarter, a half and three quarters of the way up."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass
class Result:
    """What one contender came to in one discipline: of each figure, one value for each turn.

    `base` is the contender that it is compared with: of the same race, with the same parameters.
    """

    race: str
    contender: str
    base: str
    parameters: dict[str, int | str] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, turn: dict[str, float]) -> None:
        for name, value in turn.items():
            self.figures.setdefault(name, []).append(value)

    def add_up(self, figure: str, parts: tuple[str, ...]) -> None:
        """A figure that is the sum of others, turn by turn."""
        self.figures[figure] = [sum(turn) for turn in zip(*(self.figures[part] for part in parts))]

    def median(self, figure: str) -> float:
        return statistics.median(self.figures[figure])

    def ratio(self, base: Result, figure: str) -> tuple[float, float, float] | None:
        """The quartiles of the ratios to `base`, each to that nearby, or of the same turn."""
        others = self.figures.get(OF_BASE + figure, base.figures.get(figure, []))
        pairs = list(zip(self.figures[figure], others))
        return (
            quartiles([own / other for own, other in pairs]) if pairs and all(o for _, o in pairs) else None
        )


@dataclass
class Race:
    """Everything that was measured in one run."""

    machine: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def of(self, race: str, **parameters: int | str) -> list[Result]:
        """The results of one race, with these parameters."""
        wanted = parameters.items()
        return [one for one in self.results if one.race == race and wanted <= one.parameters.items()]

    def base(self, result: Result) -> Result | None:
        same = self.of(result.race, **result.parameters)
        return next((other for other in same if other.contender == result.base), None)

    def ratio(self, result: Result, figure: str) -> tuple[float, float, float] | None:
        base = self.base(result)
        return result.ratio(base, figure) if base else None

    def save(self, path: Path) -> None:
        """As JSON, a line for each result; four digits say more than any machine's noise allows."""
        short = [asdict(one) for one in self.results]
        for one in short:
            one["figures"] = {
                name: [float(f"{value:.4g}") for value in values] for name, values in one["figures"].items()
            }
        lines = ",\n".join(json.dumps(one) for one in short)
        head = json.dumps({"machine": self.machine, "missing": self.missing}, indent=1)
        path.write_text(f'{head[:-2]},\n "results": [\n{lines}\n]}}\n')

    @classmethod
    def load(cls, path: Path) -> Race:
        data = json.loads(path.read_text())
        return cls(data["machine"], data["missing"], [Result(**result) for result in data["results"]])
