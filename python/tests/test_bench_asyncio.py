"""The comparison of event loops runs, and says what it has measured and what it has not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = str(Path(__file__).resolve().parent.parent / "benchmarks" / "bench_asyncio.py")
LIMIT = 120


def run(folder: Path, *options: str) -> tuple[str, Any]:
    path = folder / "figures.json"
    command = (sys.executable, BENCH, "--json", str(path), "--scale", "0.01", "--rounds", "2", *options)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    return done.stdout, json.loads(path.read_text())


def test_rows_with_a_client_and_without_are_measured_on_each_loop(tmp_path: Path) -> None:
    rows = ["protocol 1 KiB x10", "task, sleep(0)"]
    said, figures = run(tmp_path, "--only", "x10,task", "--loops", "asyncio", "--malloc", "cold")
    measured = {row["row"]: row for row in figures["times"]}
    for name in rows:
        assert name in said
        assert len(measured[name]["turns_ns"]["asyncio"]) == 2
        assert 0 < measured[name]["cpu_us"]["asyncio"] < 1e6
        assert measured[name]["best_of_others"] == "asyncio"
        assert measured[name]["ratio_to_best"] == {"asyncio": 1.0}


def test_a_loop_that_is_not_installed_is_named_with_the_reason(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError('there is none')\n")
    path = tmp_path / "figures.json"
    command = (sys.executable, BENCH, "--json", str(path), "--only", "wait_for", "--loops", "uvloop")
    done = subprocess.run(
        command, env={"PYTHONPATH": str(hidden)}, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True
    )
    assert "not here: uvloop (ImportError: there is none)" in done.stdout
    assert json.loads(path.read_text())["absent"] == {"uvloop": "ImportError: there is none"}


def test_idle_connections_are_measured(tmp_path: Path) -> None:
    options = ("--memory", "--connections", "50", "--loops", "asyncio")
    _, figures = run(tmp_path, *options)
    assert [row["row"] for row in figures["memory"]] == [
        "KiB a connection",
        "us of CPU an echo, without them",
        "us of CPU an echo, beside them",
    ]
    for row in figures["memory"]:
        assert row["unable"] == {}
        assert row["measured"]["asyncio"] >= 0


def test_closed_connections_leave_no_descriptor(tmp_path: Path) -> None:
    options = ("--ended", "--connections", "100", "--loops", "omnipoll-epoll")
    _, figures = run(tmp_path, *options)
    memory, descriptors = figures["ended"]
    assert descriptors["measured"] == {"omnipoll-epoll": 0}
    assert memory["measured"]["omnipoll-epoll"] < 1000
