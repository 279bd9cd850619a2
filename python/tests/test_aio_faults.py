"""The asyncio loop when system calls fail, and where the interpreter doesn't export all that it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENGINES
from preloaded import HERE, compile_library

LIMIT = 240  # seconds for a process that takes ten


# The others have the same code above the wait, and take minutes.
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine not in ("select", "poll")])
def test_a_program_goes_on_after_a_system_call_has_failed(engine: str, tmp_path: Path) -> None:
    library = compile_library("failing_calls", tmp_path)
    command = [sys.executable, str(HERE / "aio_faults.py"), engine, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    injected = [line for line in lines if len(line) == 4]
    wrong = [" ".join(map(str, line)) for line in injected if line[3]]
    print(f"{engine}: {len(injected)} faults injected, {len(injected) - len(wrong)} survived")
    assert not wrong, "\n".join(wrong)
    assert lines[-1:] == ["end"], f"{lines[-1:]}: {done.returncode} {done.stderr}"
    assert len({line[0] for line in injected}) > 10


@pytest.mark.parametrize("hidden", ["PyContext_Enter", "PyContext_CopyCurrent,PyObject_Vectorcall"])
def test_it_does_without_functions_that_are_not_in_the_limited_api(hidden: str, tmp_path: Path) -> None:
    library = compile_library("hidden_symbols", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "epoll"]
    environment = {**os.environ, "LD_PRELOAD": str(library), "HIDDEN_SYMBOLS": hidden}
    done = subprocess.run(
        [*command, "test_aio_loop.py", "test_aio_datagrams.py", "test_aio_transports.py"],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
