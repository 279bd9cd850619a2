"""Measures the event loops of asyncio on one interpreter or several, and writes it into docs/asyncio.md.

    python3 crates/omnipoll-bench/race/loops.py [--pythons python3.11,python3.13] [--rounds 7] [--scale 0.3]
    python3 crates/omnipoll-bench/race/loops.py --write     # only the page, of what docs/asyncio.json has

Takes six minutes for each interpreter, which gets an environment of its own in target/benchmarks.
`make bench` calls it; `make bench-asyncio` does without the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import build
from report import Column, number, table
from results import Race, Result

PAGE = build.TREE / "docs" / "asyncio.md"
DATA = build.TREE / "docs" / "asyncio.json"
ENVIRONMENTS = build.TREE / "target" / "benchmarks"
REQUIREMENTS = build.TREE / "python" / "requirements-benchmarks.txt"
BENCH = build.TREE / "python" / "benchmarks" / "bench_asyncio.py"
BEGIN, END = "<!-- Made by make bench-asyncio, from here -->", "<!-- to here. -->"
LOOPS = "asyncio,uvloop,rloop,omnipoll-epoll,omnipoll-io_uring"
REGIMES = {"warm": "malloc warm", "cold": "malloc cold"}


# ---- Measuring -------------------------------------------------------------------------------------


def wheel() -> Path:
    """The package, built once for all interpreters."""
    folder = ENVIRONMENTS / "wheels"
    command = [str(build.PYTHON), "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    path = f"{build.PYTHON.parent}:{os.environ['PATH']}"
    for old in folder.glob("*.whl"):
        old.unlink()
    command += ["--wheel-dir", str(folder), str(build.TREE / "python")]
    subprocess.run(command, check=True, env={**os.environ, "PATH": path})
    return next(folder.glob("*.whl"))


def environment(python: str, package: Path) -> Path:
    """The interpreter of an environment that has the package and the others' loops."""
    program = "import platform; print(platform.python_version())"
    version = subprocess.run([python, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    folder = ENVIRONMENTS / version.strip()
    own = folder / "bin" / "python"
    if not own.exists():
        make = build.TREE / ".ci" / "environment.py"
        subprocess.run([python, str(make), str(folder), "-r", str(REQUIREMENTS)], check=True)
    install = [str(own), "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", "--no-index"]
    subprocess.run([*install, str(package)], check=True)
    return own


def figures(python: Path, *options: str) -> dict[str, Any]:
    path = ENVIRONMENTS / "figures.json"
    command = [str(python), str(BENCH), "--loops", LOOPS, "--json", str(path), *options]
    subprocess.run(command, check=True)
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def measure(race: Race, python: Path, options: argparse.Namespace) -> None:
    scale = ("--scale", str(options.scale))
    times = figures(python, "--rounds", str(options.rounds), *scale)
    version = times["python"].split()[0]
    packages = ", ".join(f"{name} {number}" for name, number in times["versions"].items() if number)
    race.machine[f"Python {version}"] = f"{times['libc']}, {times['system']}, {packages}"
    race.missing |= {f"Python {version}: {name}": reason for name, reason in times["absent"].items()}
    for row in times["times"]:
        parameters = {"python": version, "row": row["row"], "malloc": row["malloc"]}
        for loop, turns in row["turns_ns"].items():
            race.results.append(Result("rows", loop, row["best_of_others"], parameters, {"cpu_ns": turns}))
    looks = (("--memory", "memory"), ("--ended", "ended"))
    for option, name in looks:
        for row in figures(python, option, *scale)[name]:
            parameters = {"python": version, "row": row["row"]}
            for loop, value in row["measured"].items():
                race.results.append(Result(name, loop, "", parameters, {"value": [value]}))


# ---- The page --------------------------------------------------------------------------------------


def title(loop: str) -> str:
    return loop.replace("omnipoll-", "ours, ")


def rows(race: Race, results: list[Result], figure: str, scale: float) -> str:
    """A row for each operation, a column for each loop; what ours on epoll is to the best of the others."""
    at = {(result.parameters["row"], result.contender): result for result in results}
    names = list(dict.fromkeys(str(result.parameters["row"]) for result in results))
    loops = list(dict.fromkeys(result.contender for result in results))

    def column(loop: str) -> Column:
        def cell(row: Result) -> str:
            found = at.get((row.contender, loop))
            return number(found.median(figure) / scale) if found else "none"

        return title(loop), cell

    def compared(row: Result) -> str:
        ours = at.get((row.contender, "omnipoll-epoll"))
        found = race.ratio(ours, figure) if ours else None
        return f"{found[1]:.2f} ({ours.base})" if ours and found else "-"

    columns = [column(loop) for loop in loops]
    if figure == "cpu_ns":
        columns.append(("epoll to the best of the others", compared))
    return table([Result("", name, "") for name in names], columns)


def text(race: Race) -> str:
    facts = "\n".join(f"- {name}: {fact}" for name, fact in race.machine.items())
    parts = [f"{facts}\n"]
    parts += [f"- without {name} ({reason})" for name, reason in race.missing.items()]
    if (PAGE.parent / "figures" / "asyncio.svg").exists():
        parts.append("![The loops of asyncio](figures/asyncio.svg)\n")
    for version in dict.fromkeys(str(result.parameters["python"]) for result in race.results):
        for malloc, words in REGIMES.items():
            found = race.of("rows", python=version, malloc=malloc)
            parts.append(f"### Python {version}, {words}: microseconds of CPU an operation\n")
            parts.append(f"{rows(race, found, 'cpu_ns', 1e3)}\n")
        parts.append(f"### Python {version}: 10,000 idle connections\n")
        parts.append(f"{rows(race, race.of('memory', python=version), 'value', 1)}\n")
        parts.append(f"### Python {version}: 100,000 connections opened, used and closed\n")
        parts.append(f"{rows(race, race.of('ended', python=version), 'value', 1)}\n")
    return "\n".join(parts)


def write(race: Race, page: Path) -> None:
    """Puts it in its place, and leaves the rest of the page as it is."""
    made = f"{BEGIN}\n\n{text(race)}\n{END}"
    place = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.S)
    before = page.read_text()
    if not place.search(before):
        raise ValueError(f"{page} has no place for it: {BEGIN}")
    page.write_text(place.sub(lambda _: made, before))


def main() -> None:
    parser = argparse.ArgumentParser(prog="loops.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pythons", default="python3", help="interpreters, with commas between them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=0.3)
    parser.add_argument("--write", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.write:
        race = Race.load(DATA)
    else:
        race, package = Race({}), wheel()
        for python in options.pythons.split(","):
            measure(race, environment(python, package), options)
        race.save(DATA)
    if build.python_has("matplotlib"):
        subprocess.run([build.PYTHON, build.BENCH / "race" / "figures.py", "asyncio"], check=True)
    else:
        print("no figure: there is no matplotlib in .venv (make python)")
    write(race, PAGE)
    print(f"wrote {os.path.relpath(PAGE)} and what it shows")


if __name__ == "__main__":
    main()
