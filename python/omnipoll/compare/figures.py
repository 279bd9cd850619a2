"""The results drawn. Needs matplotlib.

A panel for each engine, two panels a row, so that a figure can be read in a page of text. A colour
and a marker for each model, and its name beside its line. The colours are after Okabe and Ito, and
can be distinguished with every kind of colour vision.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from omnipoll.compare.measure import Result

COLOURS = {
    "reactor": "#0072B2",
    "cores": "#009E73",
    "thread": "#D55E00",
    "fork": "#A6588A",
    "prefork": "#B8860B",
}
MARKERS = {"reactor": "o", "cores": "s", "thread": "^", "fork": "D", "prefork": "v"}
INK, GREY, GRID = "#222222", "#666666", "#DDDDDD"
STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.hashsalt": "omnipoll",  # The same results make the same file.
}
COLUMNS = 2
WIDTH, HEIGHT = 4.1, 2.8  # inches, of a panel
GAP = 0.075  # between the names beside the lines, as a part of the axis
LOGARITHMIC = 8  # A range of so many times and more is drawn on a logarithmic scale.
DPI = 144

Value = Callable[[Result], float]
Unit = Callable[[float], str]


class Measure(NamedTuple):
    """One thing that is drawn."""

    file: str
    title: str
    values: dict[str, Value]  # by what is said of it after the engine's name
    unit: Unit


def in_units(*units: tuple[float, str]) -> Unit:
    """Writes numbers in the largest unit that they reach, with three digits at most."""

    def write(number: float) -> str:
        size, name = next((unit for unit in units if number >= 0.9995 * unit[0]), units[-1])
        return f"{number / size:.3g} {name}".rstrip()

    return write


NUMBER = in_units((1e6, "M"), (1e3, "k"), (1, ""))
TIME = in_units((1e6, "s"), (1e3, "ms"), (1, "µs"))
BYTES = in_units((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))

THROUGHPUT = Measure(
    "throughput", "Messages a second: more is better", {"": lambda one: one.messages_per_second}, NUMBER
)
CPU = Measure(
    "cpu",
    "CPU time of the server for a message: less is better",
    {"": lambda one: one.server_cpu_per_message},
    TIME,
)
LATENCY = Measure(
    "latency",
    "Time until a message is back: less is better",
    {": half are faster (p50)": lambda one: one.p50, ": 99 % are faster (p99)": lambda one: one.p99},
    TIME,
)
FIRST_ANSWER = Measure(
    "first-answer",
    "From connect to the first byte, with all others connected and idle: less is better",
    {
        ": half are faster (p50)": lambda one: one.first_answer_p50,
        ": 99 % are faster (p99)": lambda one: one.first_answer_p99,
    },
    TIME,
)
MEMORY = "Memory of the server for a client: less is better"


def draw(results: Sequence[Result], sentence: str, out: Path) -> list[Path]:
    """Draws every figure as SVG and PNG; returns the files."""
    written = []
    with matplotlib.rc_context(STYLE):
        drawn = {
            measure.file: curves(results, measure) for measure in (THROUGHPUT, CPU, LATENCY, FIRST_ANSWER)
        }
        drawn["memory"] = memory(results)
        drawn["overview"] = overview(results)
        for name, figure in drawn.items():
            sign(figure, sentence)
            for kind in ("svg", "png"):
                path = out / f"{name}.{kind}"
                figure.savefig(path, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
                written.append(path)
    return written


def names(values: Iterable[str]) -> list[str]:
    """Each once, in the order of their coming."""
    return list(dict.fromkeys(values))


def grid(title: str, names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each name, two a row."""
    rows = -(-len(names) // COLUMNS)
    layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.05)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.9), layout=layout)
    # So much of a line of this size fits.
    title = textwrap.fill(title, int(figure.get_figwidth() * 9))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel in panels[len(names) :]:
        panel.remove()
    for panel, name in zip(panels, names):
        panel.set_title(name, loc="left", fontsize=11)
    return figure, panels[: len(names)]


def sign(figure: Figure, sentence: str) -> None:
    """Says under the figure what was measured, and where."""
    words = textwrap.fill(sentence, int(figure.get_figwidth() * 17))
    figure.supxlabel(words, x=0.01, ha="left", fontsize=8, color=GREY)


def curves(results: Sequence[Result], measure: Measure) -> Figure:
    """A measure over the number of clients, with a panel for each engine and value."""
    engines = names(one.engine for one in results)
    cells = [(engine, words, value) for engine in engines for words, value in measure.values.items()]
    figure, panels = grid(measure.title, [engine + words for engine, words, _ in cells])
    for panel, (engine, _, value) in zip(panels, cells):
        scale(panel, results, value, measure.unit)
        lines(panel, [one for one in results if one.engine == engine], value)
    return figure


def scale(panel: Axes, results: Sequence[Result], value: Value, unit: Unit) -> None:
    """The axes: clients from left to right, and what is measured upward."""
    clients = sorted({one.clients for one in results})
    panel.set_xscale("log")
    panel.set_xlim(clients[0] / 1.3, clients[-1] * 1.3)
    panel.xaxis.set_major_locator(LogLocator(subs=(1,)) if clients[-1] >= 10 * clients[0] else NullLocator())
    panel.set_xticks(clients if len(clients) <= 5 else [], minor=False)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    panel.xaxis.set_minor_locator(NullLocator())
    values = [value(one) for one in results]
    if min(values) > 0 and max(values) >= LOGARITHMIC * min(values):
        logarithmic(panel, values, unit)
    else:
        panel.set_ylim(0, max(values) * 1.08)
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda number, _: unit(number) if number else "0"))
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.tick_params(length=0)
    panel.set_xlabel("clients")


def logarithmic(panel: Axes, values: Sequence[float], unit: Unit) -> None:
    """The axis of what is measured on a logarithmic scale, which takes more than nothing."""
    panel.set_yscale("log")
    panel.set_ylim(min(values) / 1.3, max(values) * 1.3)
    spread = max(values) / min(values)
    steps = (1, 2, 5) if spread < 30 else (1, 3) if spread < 1000 else (1,)
    panel.yaxis.set_major_locator(LogLocator(subs=steps))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda number, _: unit(number)))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_minor_locator(NullLocator())


def lines(panel: Axes, results: Sequence[Result], value: Value) -> None:
    """A line for each model, with its name where it ends."""
    ends = {}
    for model in names(one.model for one in results):
        points = [(one.clients, value(one)) for one in results if one.model == model]
        panel.plot(
            *zip(*points),
            color=COLOURS[model],
            marker=MARKERS[model],
            markersize=4.5,
            linewidth=1.8,
            clip_on=False,
        )
        ends[model] = points[-1]
    heights = {
        model: panel.transAxes.inverted().transform(panel.transData.transform(end))[1]
        for model, end in ends.items()
    }
    for model, height in apart(heights).items():
        panel.annotate(
            model,
            xy=ends[model],
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            color=COLOURS[model],
            fontweight="bold",
            fontsize=9.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS[model],
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


def apart(heights: dict[str, float]) -> dict[str, float]:
    """The heights moved as little as it takes to keep them a gap apart, in the same order."""
    order = sorted(heights, key=heights.__getitem__)
    # With a gap taken off for each that is below, they only have to be in order. Those that are
    # not are put at their mean together: isotonic regression by pooling adjacent violators.
    pools: list[list[float]] = []
    for number, name in enumerate(order):
        pools.append([heights[name] - number * GAP])
        while len(pools) > 1 and mean(pools[-2]) >= mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    flat = [mean(pool) for pool in pools for _ in pool]
    return {name: height + number * GAP for number, (name, height) in enumerate(zip(order, flat))}


def most_clients(results: Sequence[Result]) -> list[Result]:
    """Of each model and engine the result with the most clients."""
    return list(
        {(one.model, one.engine): one for one in sorted(results, key=lambda one: one.clients)}.values()
    )


def memory(results: Sequence[Result]) -> Figure:
    """A point for each model, with a panel for each engine."""
    engines = names(one.engine for one in results)
    figure, panels = grid(MEMORY, engines)
    for panel, engine in zip(panels, engines):
        points(panel, results, engine)
    return figure


def points(panel: Axes, results: Sequence[Result], engine: str) -> None:
    """A model's memory for each of its clients: a point, and the number beside it."""
    models = names(one.model for one in results)
    last = most_clients(results)
    largest = max(one.clients for one in last)
    least, most = (bound(max(one.memory_per_client, 100) for one in last) for bound in (min, max))
    panel.set_xscale("log")
    panel.set_xlim(least / 2, most * 20)
    panel.set_ylim(len(models) - 0.4, -0.6)
    panel.set_yticks(range(len(models)), models)
    panel.xaxis.set_major_locator(LogLocator(subs=(1,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: BYTES(number)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(length=0)
    panel.grid(axis="both", color=GRID, linewidth=0.8)
    panel.set_xlabel(f"with {largest:,} clients" if largest > 1 else "with 1 client")
    for one in last:
        if one.engine == engine:
            where = (max(one.memory_per_client, least), models.index(one.model))
            panel.plot(*where, color=COLOURS[one.model], marker=MARKERS[one.model], markersize=8)
            words = BYTES(one.memory_per_client) if one.memory_per_client >= 1 else "nothing"
            words += f" (with {one.clients:,})" if one.clients != largest else ""
            panel.annotate(
                words,
                where,
                (9, 0),
                textcoords="offset points",
                va="center_baseline",
                color=COLOURS[one.model],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )


def overview(results: Sequence[Result]) -> Figure:
    """Four measures at a glance, on one engine: epoll, where it was measured."""
    engines = names(one.engine for one in results)
    engine = "epoll" if "epoll" in engines else engines[-1]
    chosen = [one for one in results if one.engine == engine]
    shown = {
        "messages a second": THROUGHPUT,
        "server's CPU time for a message": CPU,
        "from connect to first byte (p50)": FIRST_ANSWER,
    }
    figure, panels = grid(f"What each way of serving costs, on {engine}", [*shown, "memory for a client"])
    for panel, measure in zip(panels, shown.values()):
        value = next(iter(measure.values.values()))
        scale(panel, chosen, value, measure.unit)
        lines(panel, chosen, value)
    points(panels[-1], chosen, engine)
    return figure
