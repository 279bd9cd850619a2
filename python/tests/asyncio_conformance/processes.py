"""Each case in a process of its own, in a folder of its own, bounded in time.

The processes are forked from this one, which has imported the tests.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import substitution

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
TRACEBACK_TIME = 5  # seconds for the tracebacks of a process that hangs


class Task(NamedTuple):
    case: unittest.TestCase
    prepare: Callable[[], None]  # Called in its process before the case.


class Outcome(NamedTuple):
    state: str
    words: str  # Why.
    loops: int  # How many loops of the class under test it has made.


@dataclass
class Running:
    name: str
    pid: int
    folder: Path
    deadline: float
    aborted: bool = False


class Runner:
    """Runs cases, some at once."""

    def __init__(self, at_once: int, limit: float) -> None:
        self._at_once = at_once
        self._limit = limit
        self._running: dict[int, Running] = {}  # By the descriptor of the process.
        self._poll = select.poll()

    def run(self, tasks: dict[str, Task]) -> Iterator[tuple[str, Outcome]]:
        waiting = list(reversed(tasks.items()))
        with tempfile.TemporaryDirectory(prefix="aio") as folder:
            while waiting or self._running:
                while waiting and len(self._running) < self._at_once:
                    self._start(*waiting.pop(), Path(folder, str(len(waiting))))
                yield from self._wait()

    def _start(self, name: str, task: Task, folder: Path) -> None:
        folder.mkdir()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            in_process(task, folder)
        process = os.pidfd_open(pid)
        self._running[process] = Running(name, pid, folder, time.monotonic() + self._limit)
        self._poll.register(process, select.POLLIN)

    def _wait(self) -> Iterator[tuple[str, Outcome]]:
        """What has ended, after waiting for it; ends what has run for too long."""
        first = min(one.deadline for one in self._running.values())
        ended = [fd for fd, _ in self._poll.poll(max(0, first - time.monotonic()) * 1000 + 1)]
        for fd in ended:
            one = self._running.pop(fd)
            self._poll.unregister(fd)
            os.close(fd)
            yield one.name, self._collect(one)
        for one in self._running.values():
            if one.deadline <= time.monotonic():
                # The first shows where it hangs.
                os.kill(one.pid, signal.SIGKILL if one.aborted else signal.SIGABRT)
                one.aborted, one.deadline = True, time.monotonic() + TRACEBACK_TIME

    def _collect(self, one: Running) -> Outcome:
        _, status = os.waitpid(one.pid, 0)
        try:
            os.killpg(one.pid, signal.SIGKILL)  # What it has left running.
        except ProcessLookupError:
            pass
        report, output = one.folder.with_suffix(".report"), one.folder.with_suffix(".output")
        if status == 0:
            outcome = Outcome(*json.loads(report.read_text()))
        else:
            code = os.waitstatus_to_exitcode(status)
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            how = f"still running after {self._limit:.0f} s" if one.aborted else how
            outcome = Outcome(FAILED, f"{how}\n{output.read_text(errors='replace')}", 0)
        shutil.rmtree(one.folder, ignore_errors=True)
        return outcome


def in_process(task: Task, folder: Path) -> None:
    """Runs the case and ends this process, which has just been forked."""
    status = 1
    try:
        os.setsid()
        redirect(folder.with_suffix(".output"))
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        # A shell that starts programs in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        task.prepare()
        outcome = run_case(task.case)
        folder.with_suffix(".report").write_text(json.dumps(outcome))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def redirect(output: Path) -> None:
    for fd, path, flags in ((0, os.devnull, os.O_RDONLY), (1, str(output), os.O_WRONLY | os.O_CREAT)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    os.dup2(1, 2)
    faulthandler.enable()


def run_case(case: unittest.TestCase) -> Outcome:
    result = unittest.TestResult()
    unittest.TestSuite([case]).run(result)
    bad = [words for _, words in result.errors + result.failures]
    bad += ["it was expected to fail" for _ in result.unexpectedSuccesses]
    if bad:
        return Outcome(FAILED, "\n".join(bad), substitution.made)
    if result.skipped:
        return Outcome(SKIPPED, result.skipped[0][1], substitution.made)
    return Outcome(PASSED, "", substitution.made)
