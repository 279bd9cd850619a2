"""The results as a table for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from omnipoll.compare.measure import LeftOut, Result
from omnipoll.compare.plan import Settings

COLUMNS = (
    "model",
    "engine",
    "clients",
    "messages/s",
    "p50 us",
    "p99 us",
    "first answer us",
    "its p99 us",
    "CPU us/message",
    "kB/client",
    "server cores",
    "load cores",
)
NOTICEABLE = 0.25  # cores that other programs take
KEYS = 3  # The first columns say what was measured.
RULE = 3  # A rule between two columns, and the spaces beside it.
WORDS = 2  # The first columns are text; the others are numbers.

READING = (
    "Each client has one message in progress. Server and clients share the cores, and where the clients' "
    "process was busy (load cores near 1) messages/s and latencies are as much its own; the server's CPU "
    "per message, which the kernel counts, is not.",
    "First answer: from the connect of one more client to its first byte back, with the others connected "
    "and idle. Memory: the pages that the server's processes have for themselves (of shared ones each its "
    "part) and their page tables, less those of the empty server. The kernel's sockets and stacks, and "
    "io_uring's rings, are not in it.",
)


def row(result: Result) -> tuple[str, ...]:
    """A result as the cells of the table."""
    return (
        result.model,
        result.engine,
        f"{result.clients:,}",
        f"{result.messages_per_second:,.0f}",
        f"{result.p50:,.0f}",
        f"{result.p99:,.0f}",
        f"{result.first_answer_p50:,.0f}",
        f"{result.first_answer_p99:,.0f}",
        f"{result.server_cpu_per_message:,.1f}",
        f"{result.memory_per_client / 1e3:,.1f}",
        f"{result.server_busy:.2f}",
        f"{result.load_busy:.2f}",
    )


def notes(settings: Settings, facts: dict[str, Any]) -> list[str]:
    """What the figures mean: what was measured and where, and how to read them."""
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    server = Path(settings.server).name if settings.server else "an echo whose handler is in Python"
    where = (
        f"Server: {server}; {settings.message_size:,} bytes a message, {settings.seconds:g} s each; "
        f"omnipoll {facts['omnipoll']}, Python {facts['python']}, {facts['system']}, {cores}."
    )
    if not settings.server:
        where += (
            " Python's own cost, and its lock between threads, is in every figure: they compare ways of "
            "serving, not languages."
        )
    return [where, *READING]


def disturbance(results: Sequence[Result]) -> list[str]:
    """A warning, where the machine had so much else to do that it shows."""
    others = median(result.others_busy for result in results) if results else 0
    if others < NOTICEABLE:
        return []
    return [
        f"This machine was busy: everything else on it took {others:.1f} of its cores (the median). "
        "Messages/s and latencies say little then; measure again when it is quiet."
    ]


def left_out_in_words(left_out: Sequence[LeftOut]) -> list[str]:
    """One line for each reason, with the combinations that it concerns."""
    reasons: dict[tuple[str, str], list[LeftOut]] = {}
    for one in left_out:
        reasons.setdefault((one.engine, one.reason), []).append(one)
    lines = []
    for (engine, reason), several in reasons.items():
        models = ", ".join(dict.fromkeys(one.model for one in several))
        clients = ", ".join(dict.fromkeys(f"{one.clients:,}" for one in several))
        noun = "client" if clients == "1" else "clients"
        lines.append(f"{models} on {engine} with {clients} {noun}: {reason}")
    return lines


def parts(results: Sequence[Result], width: int) -> list[list[int]]:
    """The numbers of the columns of each part of a table that is to be no wider than this, with room
    for rules between them. Each part begins with the columns that say what was measured."""
    rows = [COLUMNS, *map(row, results)]
    widths = [max(map(len, column)) + RULE for column in zip(*rows)]
    parts = [list(range(KEYS))]
    for number in range(KEYS, len(COLUMNS)):
        if len(parts[-1]) > KEYS and 1 + sum(widths[one] for one in (*parts[-1], number)) > width:
            parts.append(list(range(KEYS)))
        parts[-1].append(number)
    return parts


def plain(results: Sequence[Result], columns: Sequence[int] = range(len(COLUMNS))) -> str:
    """The table in text, or some of its columns."""
    rows = [[cells[number] for number in columns] for cells in (COLUMNS, *map(row, results))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < WORDS else cell.rjust(width)
            for number, cell, width in zip(columns, cells, widths)
        ).rstrip()
        for cells in rows
    )


def markdown(
    results: Sequence[Result], left_out: Sequence[LeftOut], sentences: Sequence[str], figures: Sequence[str]
) -> str:
    """The whole report in Markdown; the figures are files beside it."""
    rule = ["---" if number < WORDS else "---:" for number in range(len(COLUMNS))]
    table = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, rule, *map(row, results))]
    parts = ["# Ways of serving compared", *sentences, "\n".join(table)]
    if left_out:
        parts += ["Not measured:", "\n".join(f"- {line}" for line in left_out_in_words(left_out))]
    parts += [f"![{name.partition('.')[0]}]({name})" for name in figures]
    return "\n\n".join(parts) + "\n"


def as_json(
    results: Sequence[Result], left_out: Sequence[LeftOut], settings: Settings, facts: dict[str, Any]
) -> str:
    """Everything, for programs."""
    whole = {
        "settings": vars(settings),
        "machine": facts,
        "results": [result.as_dict() for result in results],
        "left_out": [one.as_dict() for one in left_out],
    }
    return json.dumps(whole, indent=1) + "\n"
