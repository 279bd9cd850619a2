#!/usr/bin/env python3
"""Runs the checks and tests of the project.

    test.py [STEP...]    the steps named, or all but those that run on demand
    test.py --all        those, too, and the Python tests on every interpreter: else the oldest and newest

A step that succeeds prints one line; of one that fails, the whole log follows, and the lines of it that
name what failed are printed once more at the end. The logs stay in target/test. A step whose toolchain is
not available is skipped, and counted as such.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
LOGS = TREE / "target" / "test"
PYTHON = str(TREE / ".venv" / "bin" / "python")
MSRV = re.findall(r'^rust-version = "(.*)"', (TREE / "Cargo.toml").read_text(), re.M)[0]
LIMIT = 1800  # seconds for one step
# musl; a processor without io_uring's crate; two systems that are not Linux.
TARGETS = (
    "x86_64-unknown-linux-musl s390x-unknown-linux-gnu x86_64-unknown-freebsd aarch64-apple-darwin"
)
HAS_TARGETS = (
    f"for target in {TARGETS}; do rustup target list --installed | grep -qx $target || exit 1; done"
)

NIGHTLY = ("rustup", "run", "nightly")
HAS_SOURCES = 'test -d "$(rustup run nightly rustc --print sysroot)/lib/rustlib/src/rust/library"'
HAS_FUZZ = "rustup run nightly cargo fuzz --version"

POLLING = "crates/omnipoll-polling/tests/suites.py"
TYPED = (
    f"{POLLING} .ci/test.py .ci/environment.py .ci/test_packages.py .ci/test_portable.py"
    " crates/omnipoll-capi/package/man.py c-examples/demo.py docs/test_docs.py"
)
RACE = "crates/omnipoll-bench/race"
SCRIPTS = f"{TYPED} {RACE} c-examples/test_examples.py c-examples/tests docs/deploy"
RULES = "--isolated --select E,F,W,I,B,UP --line-length 110 --target-version py39"


@dataclass
class Step:
    name: str
    command: tuple[str, ...]
    environment: dict[str, str] | None = None
    needs: tuple[str, ...] = ()  # succeeds where the step can run
    is_on_demand: bool = False  # It takes minutes and seldom finds what the others don't.


STEPS = (
    Step("format", ("cargo", "fmt", "--all", "--check")),
    Step("clippy", ("cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings")),
    # A poller alone, and each feature alone.
    Step(
        "features",
        (
            "sh",
            "-ec",
            "for features in '' serve io-uring; do"
            " cargo clippy -p omnipoll --all-targets --no-default-features --features \"$features\""
            " -- -D warnings; done",
        ),
    ),
    Step("rustdoc", ("cargo", "doc", "--workspace", "--no-deps"), {"RUSTDOCFLAGS": "-D warnings"}),
    Step(
        "msrv",
        ("cargo", f"+{MSRV}", "check", "--workspace", "--target-dir", "target/msrv"),
        needs=("rustup", "run", MSRV, "cargo", "--version"),
    ),
    # What no test here can run still has to build.
    Step(
        "targets",
        ("sh", "-ec", f"for target in {TARGETS}; do cargo check -p omnipoll --target $target; done"),
        needs=("sh", "-c", HAS_TARGETS),
    ),
    # omnipoll-capi is tested by the step "c", omnipoll-python by "python".
    Step("rust", ("cargo", "test", "--no-fail-fast", "-p", "omnipoll", "-p", "omnipoll-bench")),
    # The suites of the packages that use the crate polling, from the registry.
    Step("polling", (PYTHON, POLLING), is_on_demand=True),
    Step("inject", ("cargo", "test", "-p", "omnipoll", "--test", "inject")),
    Step("asan", ("make", "asan"), needs=(*NIGHTLY, "rustc", "--version"), is_on_demand=True),
    Step("tsan", ("make", "tsan"), needs=("sh", "-c", HAS_SOURCES), is_on_demand=True),
    Step("miri", ("make", "miri"), needs=(*NIGHTLY, "cargo", "miri", "--version"), is_on_demand=True),
    Step("fuzz", ("make", "fuzz", "SECONDS=15"), needs=("sh", "-c", HAS_FUZZ), is_on_demand=True),
    Step("build", ("make", "all")),
    Step("c", ("make", "check")),
    Step("examples", (PYTHON, "c-examples/test_examples.py")),
    Step("packages", (PYTHON, ".ci/test_packages.py")),
    Step("portable", ("sh", "-ec", f"make wheels; {PYTHON} .ci/test_portable.py"), is_on_demand=True),
    Step("demo", ("make", "demo", "CLIENTS=100")),
    Step("python", ("python/check.sh",)),
    Step("asyncio", ("python/check_asyncio.sh",)),
    Step("race", (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "crates/omnipoll-bench/race")),
    Step("docs", (PYTHON, "docs/test_docs.py")),
    Step("deploy", (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "docs/deploy")),
    Step(
        "scripts",
        (
            "sh",
            "-ec",
            f"{PYTHON} -m ruff check {RULES} {SCRIPTS}; {PYTHON} -m mypy --strict {TYPED};"
            f"cd {RACE}; {PYTHON} -m mypy --strict *.py",
        ),
    ),
)


@dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def count(log: str, status: int) -> Outcome:
    """What the tests of a step say themselves; a step without tests is one."""
    cargo = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed;(?:.*? (\d+) filtered out)?", log, re.M)
    if cargo:
        outcome = Outcome(*(sum(int(number or 0) for number in column) for column in zip(*cargo)))
    elif last := [line for line in log.splitlines() if re.search(r"\b\d+ (passed|failed)\b", line)][-1:]:
        numbers = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last[0])}
        outcome = Outcome(*(numbers.get(word, 0) for word in ("passed", "failed", "skipped")))
    else:
        outcome = Outcome(passed=int(status == 0))
    if status != 0 and not outcome.failed:
        outcome.failed = 1
    return outcome


def failures(log: str) -> list[str]:
    """The lines of cargo, pytest, unittest, compilers and a watchdog that name a failure; the last ones."""
    names = r"^(?:FAILED|ERROR|FAIL:|error|test .* FAILED|Timeout|.*: error:|  File .*/tests?/|Python .* at )"
    return [line[:160] for line in log.splitlines() if re.match(names, line)][-12:]


def succeeds(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, cwd=TREE, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def run(step: Step) -> Outcome:
    print(f"{step.name:<10}", end="", flush=True)
    if step.needs and not succeeds(step.needs):
        print(f"skipped: this fails: {' '.join(step.needs)}")
        return Outcome(skipped=1)
    path = LOGS / f"{step.name}.log"
    begin = time.monotonic()
    with path.open("wb") as log:
        command = ("timeout", "--kill-after=10", str(LIMIT), *step.command)
        environment = {**os.environ, **(step.environment or {})}
        status = subprocess.run(
            command, cwd=TREE, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ).returncode
    text = path.read_text(errors="replace")
    outcome = count(text, status)
    notes = re.findall(r"^\d+ faults injected, \d+ survived$", text, re.M)
    print(f"{time.monotonic() - begin:6.1f} s  {'; '.join([str(outcome), *notes])}")
    if status != 0:
        print(f"{text}\n{step.name} FAILED with status {status}: {' '.join(step.command)}\n")
    return outcome


def main(names: list[str]) -> int:
    known = {step.name: step for step in STEPS}
    default = [step.name for step in STEPS if not step.is_on_demand]
    if names == ["--all"]:
        names, os.environ["EVERY_PYTHON"] = list(known), "1"
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such step: {' '.join(unknown)}; there are: {' '.join(known)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    chosen = names or default
    outcomes = [run(known[name]) for name in chosen]
    total = Outcome(
        sum(outcome.passed for outcome in outcomes),
        sum(outcome.failed for outcome in outcomes),
        sum(outcome.skipped for outcome in outcomes),
    )
    for name in (name for name, outcome in zip(chosen, outcomes) if outcome.failed):
        for line in failures((LOGS / f"{name}.log").read_text(errors="replace")):
            print(f"{name}: {line}")
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
