#!/usr/bin/env python3
"""Runs the suites of the packages that use polling on this crate, and on the genuine one beside it.

The sources come through cargo, into target/polling: polling's own tests, async-io's, async-process's,
async-signal's and calloop's, in two workspaces that differ in one line, the patch. Each of their cases runs
with the genuine crate, and with this one on each engine. What passes there has to pass here, but for
what exceptions.txt names; an entry there that passes is an error too. A case that fails runs again by
itself, in a quiet moment: many of them assert times.

    python3 crates/omnipoll-polling/tests/suites.py [ENGINE...]

Takes four minutes on two processors that are busy with something else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRATE = HERE.parent
TARGET = CRATE.parent.parent / "target" / "polling"
ENGINES = ("select", "poll", "epoll", "io_uring")
GENUINE = "genuine"
# Exact versions: exceptions.txt names their cases.
PACKAGES = {
    "polling": "3.11.0",
    "async-io": "2.6.0",
    "async-process": "2.5.0",
    "async-signal": "0.2.14",
    "calloop": "0.14.5",
}
FEATURES = "calloop/block_on,calloop/executor,calloop/signals,calloop/stream"
LIMIT = 120  # seconds for one program of tests
AGAIN = 2  # how many failed cases of a program run again; more can't be bad luck


def cargo(folder: Path, *arguments: str) -> str:
    """What cargo prints on its standard output."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "build"), "CARGO_PROFILE_DEV_DEBUG": "0"}
    outcome = subprocess.run(
        ("cargo", *arguments), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    if outcome.returncode != 0:
        sys.exit(f"cargo {' '.join(arguments)} fails in {folder}")
    return outcome.stdout


# ---- The sources -----------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Only what has changed is written, so that only that is built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def sources() -> dict[str, Path]:
    """Where cargo has unpacked each package."""
    folder = TARGET / "sources"
    pins = "".join(f'{name} = "={version}"\n' for name, version in PACKAGES.items())
    write(folder / "src" / "lib.rs", "")
    write(
        folder / "Cargo.toml",
        f'[package]\nname = "sources"\nedition = "2021"\n[dependencies]\n{pins}[workspace]\n',
    )
    packages = json.loads(cargo(folder, "metadata", "--format-version", "1"))["packages"]
    return {
        package["name"]: Path(package["manifest_path"]).parent
        for package in packages
        if package["name"] in PACKAGES
    }


def manifest_of_tests(text: str) -> str:
    """A package's manifest without benchmarks and what only they need."""
    sections = re.split(r"^(?=\[)", text, flags=re.M)
    unwanted = ("[[bench]]", "[[example]]", "[dev-dependencies.criterion]")
    return "".join(section for section in sections if not section.startswith(unwanted))


def manifest_of_pollings_tests(text: str) -> str:
    """Of polling only the tests, as a package that depends on polling as others do."""
    sections = re.split(r"^(?=\[)", manifest_of_tests(text), flags=re.M)
    wanted = ("[[test]]", "[dev-dependencies", "[target.'cfg(all(unix", '[target."cfg(unix)".dev', "[lints")
    kept = "".join(section for section in sections if section.startswith(wanted))
    return (
        '[package]\nname = "polling-suite"\nversion = "0.0.0"\nedition = "2021"\nautotests = false\n'
        f'[dependencies]\ncfg-if = "1"\npolling = "={PACKAGES["polling"]}"\n{kept}'
    )


def make_workspace(name: str, unpacked: dict[str, Path]) -> Path:
    """The packages as members of a workspace, with polling as the patch says."""
    folder = TARGET / name
    patches = ""
    for package, source in unpacked.items():
        copy = folder / package
        for file in sorted(source.rglob("*")):
            inside = file.relative_to(source)
            if file.is_file() and file.suffix in (".rs", ".md", ".txt") and inside.parts[0] != "benches":
                write(copy / inside, file.read_text())
        manifest = (source / "Cargo.toml").read_text()
        if package == "polling":
            shutil.rmtree(copy / "src")
            write(copy / "src" / "lib.rs", "")
            write(copy / "Cargo.toml", manifest_of_pollings_tests(manifest))
        else:
            write(copy / "Cargo.toml", manifest_of_tests(manifest))
            patches += f'{package} = {{ path = "{package}" }}\n'
    if name != GENUINE:
        patches += f'polling = {{ path = "{CRATE}" }}\n'
    members = ", ".join(f'"{package}"' for package in unpacked)
    write(
        folder / "Cargo.toml",
        f'[workspace]\nresolver = "2"\nmembers = [{members}]\n[patch.crates-io]\n{patches}',
    )
    return folder


# ---- The cases -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """The cases of one file, as a program that cargo has built."""

    package: str
    name: str
    path: str
    has_cases: bool

    def run(self, engine: str, case: str | None = None) -> dict[str, bool]:
        """Whether each case passes, or one of them. One that the program doesn't come to does not."""
        names = [case] if case else self.cases()
        if not self.has_cases:
            return {self.name: self.call(engine)[0]}
        only = ("--exact", case) if case else ()
        printed = self.call(engine, *only)[1]
        results = dict(re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (\w+)", printed, re.M))
        return {name: results.get(name) == "ok" for name in names if results.get(name) != "ignored"}

    def cases(self) -> list[str]:
        return re.findall(r"^(\S+): test$", self.call(GENUINE, "--list")[1], re.M) if self.has_cases else []

    def call(self, engine: str, *arguments: str) -> tuple[bool, str]:
        environment = {**os.environ, "OMNIPOLL_ENGINE": "" if engine == GENUINE else engine}
        command = ("timeout", "--kill-after=1", str(LIMIT), self.path, *arguments)
        done = subprocess.run(
            command,
            cwd=TARGET,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode == 0, done.stdout.decode(errors="replace")


def build(folder: Path) -> list[Program]:
    scope = () if folder == CRATE else ("--workspace", "--features", FEATURES)
    options = ("--lib", "--tests", "--no-run", "--message-format", "json", "--quiet")
    printed = cargo(folder, "test", *scope, *options)
    programs = []
    for message in map(json.loads, printed.splitlines()):
        if message.get("executable"):
            package = Path(message["manifest_path"]).parent.name
            name = message["target"]["name"]
            manifest = Path(message["manifest_path"]).read_text()
            section = re.search(rf'\[\[test\]\]\nname = "{name}"\n(?:\w.*\n)*', manifest)
            has_cases = not section or "harness = false" not in section[0]
            programs.append(Program(package, name, message["executable"], has_cases))
    return programs


def run_all(programs: list[Program], engine: str) -> dict[str, bool]:
    """Whether each case passes, at the first time or again by itself."""
    outcome = {}
    for program in programs:
        cases = program.run(engine)
        failed = [case for case, passes in cases.items() if not passes]
        again = {case: program.run(engine, case)[case] for case in failed[:AGAIN]}
        for case, passes in cases.items():
            name = f"{program.package}::{program.name}::{case}"
            outcome[name] = passes or again.get(case, False)
            if outcome[name] and not passes:
                print(f"{engine:<10}{name} passes by itself only", flush=True)
    return outcome


# ---- The comparison --------------------------------------------------------------------------


def exceptions() -> dict[tuple[str, str], str]:
    """Why a case may fail on an engine."""
    reasons = {}
    for line in (HERE / "exceptions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            engine, case, reason = line.split(maxsplit=2)
            reasons[engine, case] = reason
    return reasons


def check(engine: str, genuine: dict[str, bool], ours: dict[str, bool]) -> int:
    """Prints how an engine has done, and returns how many cases are wrong."""
    allowed = {case for named, case in exceptions() if named == engine}
    expected = {case for case, passes in genuine.items() if passes}
    failing = {case for case in expected if not ours.get(case, False)}
    for case in sorted(failing - allowed):
        print(f"{engine:<10}{case} FAILS, and passes with the genuine crate")
    for case in sorted(allowed - failing):
        print(f"{engine:<10}{case} passes or is none: exceptions.txt is WRONG")
    print(f"{engine:<10}{len(expected - failing)} of {len(expected)}, {len(failing & allowed)} excepted")
    return len(failing ^ allowed)


def run_own(programs: list[Program], engine: str) -> dict[str, bool]:
    """This crate's own tests, which have to pass on each engine."""
    return {
        f"{engine} {case}": passes
        for program in programs
        for case, passes in program.run(engine).items()
    }


def main(engines: list[str]) -> int:
    if unknown := set(engines) - set(ENGINES):
        sys.exit(f"no such engine: {' '.join(sorted(unknown))}")
    engines = engines or list(ENGINES)
    unpacked = sources()
    theirs, ours = (build(make_workspace(name, unpacked)) for name in (GENUINE, "ours"))
    own = build(CRATE)
    cargo(CRATE, "test", "--doc", "--quiet")
    with ThreadPoolExecutor(1 + len(engines)) as pool:
        genuine = pool.submit(run_all, theirs, GENUINE)
        outcomes = {engine: pool.submit(run_all, ours, engine) for engine in engines}
        print(f"{GENUINE:<10}{sum(genuine.result().values())} of {len(genuine.result())}", flush=True)
        wrong = sum(check(engine, genuine.result(), outcomes[engine].result()) for engine in engines)
    owns = {case: passes for engine in engines for case, passes in run_own(own, engine).items()}
    for case in sorted(case for case, passes in owns.items() if not passes):
        print(f"{case} FAILS")
    failed = wrong + list(owns.values()).count(False)
    passed = [outcome.result() for outcome in outcomes.values()] + [owns]
    print(f"{sum(sum(cases.values()) for cases in passed)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
