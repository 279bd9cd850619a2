"""Runs the tests on the oldest and the newest CPython that the wheel is for and that this machine has.

    python all_versions.py WHEEL [PROGRAM]

PROGRAM, one of this folder, takes the place of pytest; its last line has the counts as pytest's has. With
EVERY_PYTHON=1 in the environment, the minor versions between run them as well. Looks for interpreters on
PATH and among pyenv's. Each gets a virtual environment under target/python, which is used again the next
time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
TREE = TESTS.parent.parent
VENVS = TREE / "target" / "python"
REQUIREMENTS = TESTS.parent / "requirements-dev.txt"
OLDEST = (3, 9)
LIMIT = 1200  # seconds for one interpreter
AT_ONCE = 4  # They mostly wait.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]

PROBE = """
import json, platform, sys, sysconfig
print(json.dumps([
    platform.python_implementation(), sys.version_info[:3], getattr(sys, "_base_executable", ""),
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
]))
"""


class Interpreter(NamedTuple):
    version: tuple[int, ...]
    path: str
    obstacle: str  # Why the wheel is not for it.

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


class Outcome(NamedTuple):
    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def candidates() -> list[Path]:
    """Whatever may be an interpreter."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        folders += Path(root).glob("versions/*/bin")
    name = re.compile(r"python3(\.\d+)?")
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if name.fullmatch(path.name)
    ]


def probe(path: Path) -> Interpreter | None:
    try:
        answer = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60)
        implementation, version, base, without_gil = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None  # One of pyenv's that is not chosen, say.
    obstacle = ""
    if implementation != "CPython":
        obstacle = f"it is {implementation}"
    elif tuple(version[:2]) < OLDEST:
        obstacle = "it is older than the stable ABI of 3.9 that the wheel is made for"
    elif without_gil:
        obstacle = "free-threaded builds are not supported"
    return Interpreter(tuple(version), base or str(path), obstacle)


def interpreters() -> list[Interpreter]:
    """The newest of each minor version."""
    found = sorted(one for one in map(probe, candidates()) if one)
    return list({(one.version[:2], one.obstacle): one for one in found}.values())


def environment(interpreter: Interpreter) -> str:
    """The interpreter of a virtual environment that has what the tests need."""
    folder = VENVS / interpreter.name
    lines = REQUIREMENTS.read_text().splitlines()
    wanted = [line for line in lines if line.startswith(("pytest", "rich", "matplotlib", "prometheus"))]
    stamp = folder / "requirements"
    signature = "\n".join([interpreter.path, *wanted])
    if not stamp.exists() or stamp.read_text() != signature:
        make = [interpreter.path, str(TREE / ".ci" / "environment.py"), str(folder), *wanted]
        subprocess.run(make, check=True)
        stamp.write_text(signature)
    return str(folder / "bin" / "python")


def run(interpreter: Interpreter, wheel: str, program: list[str]) -> tuple[Outcome, str]:
    """Installs the wheel and runs the tests; returns what they say."""
    begin = time.monotonic()
    python = environment(interpreter)
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--force-reinstall",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(install, check=True)
    command = [
        "timeout",
        "--kill-after=10",
        str(LIMIT),
        python,
        *program,
    ]
    tests = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    last = tests.stdout.splitlines()[-1:]
    counts = re.findall(r"(\d+) (passed|failed|error|skipped)", "".join(last))
    words = {word: int(number) for number, word in counts}
    failed = words.get("failed", 0) + words.get("error", 0)
    outcome = Outcome(words.get("passed", 0), failed or int(tests.returncode != 0), words.get("skipped", 0))
    print(f"Python {interpreter.name:8} {time.monotonic() - begin:5.1f} s  {outcome}", flush=True)
    return outcome, tests.stdout + tests.stderr


def main(wheel: str, *program: str) -> int:
    every = interpreters()
    for interpreter in every:
        if interpreter.obstacle:
            print(f"Python {interpreter.name:8} left out: {interpreter.obstacle}")
    chosen = [interpreter for interpreter in every if not interpreter.obstacle]
    if "EVERY_PYTHON" not in os.environ:
        chosen = chosen[:1] + chosen[1:][-1:]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda one: run(one, wheel, list(program) or PYTEST), chosen))
    for interpreter, (outcome, log) in zip(chosen, results):
        if outcome.failed:
            print(f"\nPython {interpreter.name} at {interpreter.path}:\n{log}")
    total = Outcome(*(sum(column) for column in zip(*(outcome for outcome, _ in results))))
    print(f"{len(chosen)} interpreters: {total}")
    return 1 if total.failed or not chosen else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
