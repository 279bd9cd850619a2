"""Measures each way of serving on this machine, model by engine, and draws what it costs."""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from omnipoll import info
from omnipoll.compare import report
from omnipoll.compare.measure import LeftOut, Result, run_one
from omnipoll.compare.plan import LARGEST_MESSAGE, MODELS, Combination, Obstacles, Settings
from omnipoll.compare.stage import Failed

HELP = "measure each way of serving on this machine, and draw what it costs"
QUICK = {"clients": (1, 100), "seconds": 0.3}
INSTALL = "python -m pip install 'omnipoll[compare]'"

Outcome = tuple["list[Result]", "list[LeftOut]"]


def some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Takes names from a list, separated by commas."""
    known = tuple(known)

    def take(words: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(words.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
        return names

    return take


def whole(least: int, most: int) -> Callable[[str], int]:
    """Takes a whole number."""

    def take(words: str) -> int:
        number = int(words)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is not from {least} to {most:,}")
        return number

    return take


def counts(words: str) -> tuple[int, ...]:
    """Takes numbers of clients, separated by commas."""
    return tuple(sorted({whole(1, 100_000)(word) for word in words.split(",")}))


def duration(words: str) -> float:
    """Takes seconds."""
    seconds = float(words)
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{words} s is not from 0.01 s to an hour")
    return seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command. One that is not given has the default of `Settings`."""
    parser.add_argument("--models", type=some_of(MODELS), metavar="M,...", help=f"of {','.join(MODELS)}")
    engines = ",".join(info.ENGINES)
    parser.add_argument("--engines", type=some_of(info.ENGINES), metavar="E,...", help=f"of {engines}")
    parser.add_argument("--clients", type=counts, metavar="N,...", help="how many at once: 1,10,100,1000")
    size = whole(1, LARGEST_MESSAGE)
    parser.add_argument("--message-size", type=size, metavar="BYTES", help="64; at most 65536")
    parser.add_argument("--seconds", type=duration, metavar="S", help="for each combination: 1")
    parser.add_argument("--quick", action="store_true", help="only 1 and 100 clients, for 0.3 s each")
    parser.add_argument(
        "--server",
        metavar="PATH",
        help="measure this program instead of the echo in Python: it is given --model, --engine, --address "
        "and, for hundreds of clients, --max-clients; its first line ends with its address; SIGTERM ends it",
    )
    out = Path("omnipoll-compare")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"where the files go: {out}")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options ask for."""
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    return Settings(**{**(QUICK if options.quick else {}), **given})


def raise_the_descriptor_limit() -> None:
    """As far as this process may; the server and the clients inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure_all(settings: Settings, announce: Callable[[Combination], None]) -> Outcome:
    """Every combination's result, or the reason why there is none. `announce` is called with each before."""
    obstacles = Obstacles()
    results, left_out = [], []
    for combination in settings.combinations():
        announce(combination)
        reason = obstacles.to(combination)
        if reason is None:
            try:
                result = run_one(combination, settings)
                obstacles.learn(combination, result.memory_per_client)
                results.append(result)
                continue
            except Failed as failure:
                reason = str(failure)
        left_out.append(LeftOut(*combination, reason))
    return results, left_out


@contextmanager
def progress(total: int) -> Iterator[Callable[[Combination], None]]:
    """Shows on standard error how far it has come: a bar with rich, lines without."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        number = 0

        def announce(combination: Combination) -> None:
            nonlocal number
            number += 1
            print(f"[{number}/{total}] {combination}", file=sys.stderr, flush=True)

        yield announce
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # The load must not compete with the bar: it is drawn again only when something has changed.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        done = 0

        def move(combination: Combination) -> None:
            nonlocal done
            bar.update(task, completed=done, description=str(combination), refresh=True)
            done += 1

        yield move
        bar.update(task, completed=total, description="done", refresh=True)


def print_table(results: list[Result]) -> None:
    """The table on standard output: in several parts on a terminal that is too narrow for one."""
    if not sys.stdout.isatty():
        print(report.plain(results))
        return
    parts = report.parts(results, shutil.get_terminal_size().columns)
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(*(report.plain(results, part) for part in parts), sep="\n\n")
        return
    for part in parts:
        table = Table(row_styles=("", "dim"))
        for number in part:
            table.add_column(
                report.COLUMNS[number], justify="left" if number < report.WORDS else "right", no_wrap=True
            )
        for result in results:
            cells = report.row(result)
            table.add_row(*(cells[number] for number in part))
        Console().print(table)


def draw(results: list[Result], sentence: str, out: Path) -> list[Path]:
    """The figures; none without matplotlib, and then says how to come by it."""
    try:
        from omnipoll.compare import figures
    except ImportError as error:
        print(f"no figures: {error}. They, and a progress bar, come with:\n    {INSTALL}", file=sys.stderr)
        return []
    return figures.draw(results, sentence, out)


def run(options: argparse.Namespace) -> int:
    """Measures, and writes the report; the exit status is 1 when nothing could be measured."""
    settings, facts = settings_of(options), info.gather()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"can't make the folder {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    raise_the_descriptor_limit()
    with progress(len(settings.combinations())) as announce:
        results, left_out = measure_all(settings, announce)
    sentences = report.notes(settings, facts) + report.disturbance(results)
    print_report(results, left_out, sentences)
    captions = " ".join([sentences[0], *report.disturbance(results)])
    figures = draw(results, captions, options.out) if results else []
    drawn = [figure.name for figure in figures if figure.suffix == ".svg"]
    texts = {
        "compare.md": report.markdown(results, left_out, sentences, drawn),
        "compare.json": report.as_json(results, left_out, settings, facts),
    }
    for name, text in texts.items():
        (options.out / name).write_text(text)
    print("Written:", *(options.out / name for name in texts), *figures, sep="\n  ")
    return 0 if results else 1


def print_report(results: list[Result], left_out: list[LeftOut], sentences: list[str]) -> None:
    """The report for a terminal."""
    import textwrap

    print_table(results)
    for sentence in sentences:
        print("\n" + textwrap.fill(sentence, min(100, shutil.get_terminal_size((100, 24)).columns)))
    if left_out:
        print("\nNot measured:", *report.left_out_in_words(left_out), sep="\n  ")
    print()
