#!/usr/bin/env python3
"""Draws docs/figures/*.svg and *.png from docs/race.json, or from docs/asyncio.json with the argument
asyncio. `make bench` calls it; so may you."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

import build
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from results import Race, Result, quartiles  # noqa: E402

DOCS = build.TREE / "docs"

OURS, RAW, OTHERS = "#d1495b", "#2b2d42", "#8d99ae"
ENGINES = {"epoll": "#d1495b", "io_uring": "#7b2d8b", "poll": "#00798c", "select": "#edae49"}
plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "svg.fonttype": "none",
        "svg.hashsalt": "omnipoll",
    }
)


def color(contender: str) -> str:
    if "omnipoll" in contender:
        return OURS
    return RAW if contender.startswith(("raw", "select.epoll")) else OTHERS


def save(figure: Any, name: str) -> None:
    folder = DOCS / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(folder / f"{name}.{suffix}", dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)


def dots(
    panels: dict[str, list[Result]],
    spread: Callable[[Result], tuple[float, float, float] | None],
    title: str,
    name: str,
    line: float | None = None,
    least: float = 0,
    most: float | None = None,
    written: str = "{:.2f}",
    tints: Callable[[str, str], str] = lambda panel, contender: color(contender),
) -> None:
    """A panel for each discipline, a row for each contender: the median, and a line from quartile to
    quartile. What lies beyond `most` is written at the edge."""
    order = list(dict.fromkeys(result.contender for results in panels.values() for result in results))
    height = 0.9 + 0.24 * len(order)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.2 + 2.3 * len(panels), height), sharey=True, squeeze=False
    )
    for axis, (label, results) in zip(axes[0], panels.items()):
        for result in results:
            if (found := spread(result)) is None:
                continue
            row, (low, middle, high) = order.index(result.contender), found
            tint = tints(label, result.contender)
            if most is not None and middle > most:
                text = (written + " \u2192").format(middle)
                axis.text(most, row, text, ha="right", va="center", color=tint, fontsize=8)
                continue
            axis.plot([low, min(high, most or high)], [row, row], color=tint, linewidth=2, alpha=0.45)
            axis.plot(middle, row, "o", color=tint, markersize=5.5)
        if line is not None:
            axis.axvline(line, color="#bbbbbb", linewidth=1, zorder=0)
        axis.set_title(label)
        axis.grid(axis="x", color="#eeeeee")
        axis.set_axisbelow(True)
        axis.tick_params(length=0)
        if most is None:
            axis.margins(x=0.12)
        else:
            axis.set_xlim(least, most)
    first = axes[0][0]
    first.set_yticks(range(len(order)), order)
    for tick in first.get_yticklabels():
        tick.set_color(color(tick.get_text()))
    first.set_ylim(len(order) - 0.5, -0.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    figure.tight_layout()
    save(figure, name)


def by(results: list[Result], label: Callable[[Result], str]) -> dict[str, list[Result]]:
    panels: dict[str, list[Result]] = {}
    for result in results:
        panels.setdefault(label(result), []).append(result)
    return panels


def own(figure: str, scale: float = 1) -> Callable[[Result], tuple[float, float, float]]:
    def spread(result: Result) -> tuple[float, float, float]:
        low, middle, high = quartiles(result.figures[figure])
        return low / scale, middle / scale, high / scale

    return spread


def draw_watch(race: Race) -> None:
    chosen = [
        result
        for result in race.of("watch")
        if not result.contender.endswith("Python") and "again" not in result.contender
    ]
    cells = list(
        by(chosen, lambda result: "{pairs:,} watched, {ready:,} ready".format(**result.parameters)).items()
    )
    picked = dict(cells[:: max(1, len(cells) // 4)][:4])
    title = "Time of an event (wait and read), ratio to a loop written straight on epoll. Less is better."
    dots(picked, lambda result: race.ratio(result, "event_ns"), title, "watch", line=1, least=0.7, most=2)


def draw_growth(race: Race) -> None:
    figure, axis = plt.subplots(figsize=(7.2, 4.4))
    for contender, results in by(race.of("growth"), lambda result: result.contender).items():
        engine = next((name for name in ("select", "epoll", "io_uring", "poll") if name in contender), None)
        if engine is None or "again" in contender or "edges" in contender:
            continue
        ours = "omnipoll" in contender
        results.sort(key=lambda result: int(result.parameters["idle"]))
        idle = [int(result.parameters["idle"]) for result in results]
        axis.plot(
            idle,
            [result.median("event_ns") for result in results],
            color=ENGINES[engine],
            linestyle="-" if ours else ":",
            marker="o" if ours else None,
            markersize=4,
            linewidth=2 if ours else 1.6,
            label=contender.removesuffix(", C"),
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("descriptors watched on which nothing happens")
    axis.set_ylabel("nanoseconds for one event")
    axis.set_title("What an event costs as idle descriptors grow", loc="left")
    axis.grid(which="major", color="#eeeeee")
    axis.legend(frameon=False, fontsize=8)
    save(figure, "growth")


def draw_timers(race: Race) -> None:
    steps = {"arm_ns": "arm", "cancel_ns": "cancel", "again_ns": "cancel and arm", "expire_ns": "expire"}
    armed = sorted({int(result.parameters["armed"]) for result in race.of("timers")})
    size = armed[len(armed) // 2]
    results = race.of("timers", armed=size)
    panels = {
        label: [Result("timers", one.contender, "", {}, {"ns": one.figures[figure]}) for one in results]
        for figure, label in steps.items()
    }
    title = f"A timer, with {size:,} others armed: nanoseconds. Less is better."
    dots(panels, own("ns"), title, "timers", line=0)


def clients(result: Result) -> str:
    count = int(result.parameters["clients"])
    return "1 client" if count == 1 else f"{count:,} clients"


def draw_echo(race: Race) -> None:
    results = [result for result in race.of("echo", bytes=64) if "again" not in result.contender]
    panels = by(results, clients)
    title = "Echo of 64 bytes over TCP: the server's CPU time a message, ratio to raw epoll. Less is better."
    dots(panels, lambda result: race.ratio(result, "cpu_ns"), title, "echo", line=1, least=0.6, most=2)


def draw_connections(race: Race) -> None:
    results = [result for result in race.of("connections") if "again" not in result.contender]
    title = (
        "A connection for each echo of 64 bytes: the server's CPU time, ratio to raw epoll. Less is better."
    )
    panels = by(results, clients)
    dots(panels, lambda result: race.ratio(result, "cpu_ns"), title, "connections", line=1, least=0.6, most=2)


def draw_proxy(race: Race) -> None:
    results = [result for result in race.of("proxy") if "cpu_ns" in result.figures]
    panels = by(
        [result for result in results if "again" not in result.contender],
        lambda result: str(result.parameters["test"]),
    )
    title = "A TCP proxy: the CPU time of its process a message, ratio to raw epoll. Less is better."
    dots(panels, lambda result: race.ratio(result, "cpu_ns"), title, "proxy", line=1, least=0.6, most=2)


def draw_protocols(race: Race) -> None:
    results = [result for result in race.of("protocols") if "cpu_ns" in result.figures]
    panels = by(results, lambda result: str(result.parameters["test"]))
    title = "The server's CPU time a request, ratio to raw epoll. Less is better."
    dots(panels, lambda result: race.ratio(result, "cpu_ns"), title, "protocols", line=1, least=0.6, most=2)


DRAWINGS = {
    "watch": draw_watch,
    "growth": draw_growth,
    "timers": draw_timers,
    "echo": draw_echo,
    "connections": draw_connections,
    "proxy": draw_proxy,
    "protocols": draw_protocols,
}


def draw_asyncio(race: Race) -> None:
    """A panel for each loop, and a row for each operation, on the interpreter that was measured last."""
    version = next(reversed(race.results)).parameters["python"]
    measured = race.of("rows", python=version, malloc="warm")
    panels: dict[str, list[Result]] = {}
    for loop, results in by(measured, lambda result: result.contender).items():
        panels[loop] = [
            Result("rows", str(one.parameters["row"]), "", {}, {"ratio": list(spread)})
            for one in results
            if (spread := race.ratio(one, "cpu_ns"))
        ]
    title = (
        f"The loop's CPU time an operation, Python {version}: ratio to the best of the others. "
        "Less is better."
    )

    def spread_of(result: Result) -> tuple[float, float, float]:
        low, middle, high = result.figures["ratio"]
        return low, middle, high

    def tint(panel: str, _: str) -> str:
        return color(panel)

    dots(panels, spread_of, title, "asyncio", line=1, least=0.3, most=2.5, tints=tint)


def draw(race: Race) -> None:
    for name, drawing in DRAWINGS.items():
        if race.of(name):
            drawing(race)


if __name__ == "__main__":
    if sys.argv[1:] == ["asyncio"]:
        draw_asyncio(Race.load(DOCS / "asyncio.json"))
        sys.exit()
    draw(Race.load(Path(DOCS / "race.json")))
