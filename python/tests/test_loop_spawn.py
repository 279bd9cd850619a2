"""Programs that a loop starts: their streams are connections, their end is an event."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import LONG
from loops import in_thread

import omnipoll
from omnipoll import Connection, Event, Loop
from omnipoll.programs import Program


def outcome(loop: Loop, program: Program) -> tuple[int, dict[Connection, bytes]]:
    """Its exit status and what it has written, when all of its streams have ended, too."""
    status, written = None, dict[Connection, bytes]()
    streams = [stream for stream in (program.stdin, program.stdout, program.stderr) if stream]
    while status is None or any(stream.is_open for stream in streams):
        events = loop.wait(LONG)
        assert events
        for event in events:
            if event.kind == omnipoll.DATA:
                written[event.connection] = written.get(event.connection, b"") + event.data
            elif event.kind == omnipoll.ENDED:
                event.connection.close()
            elif event.kind == omnipoll.CHILD:
                assert event.token is program
                status = os.waitstatus_to_exitcode(event.value)
    return status, written


def test_what_a_program_reads_and_writes(loop: Loop) -> None:
    program = loop.spawn(["sh", "-c", "cat; echo an error >&2; exit 3"])
    assert program.stdin is not None
    big = bytes(range(256)) * 4000
    program.stdin.write(big)
    program.stdin.close()
    status, written = outcome(loop, program)
    assert status == 3
    assert written == {program.stdout: big, program.stderr: b"an error\n"}


def test_a_program_that_is_killed(loop: Loop) -> None:
    program = loop.spawn(["cat"], token=None)
    os.kill(program.pid, signal.SIGTERM)
    assert outcome(loop, program) == (-signal.SIGTERM, {})


def test_options_are_those_of_popen(loop: Loop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        program = loop.spawn(
            ["sh", "-c", "pwd >&2; cat; echo $WORD"],
            pipes=["stderr"],
            cwd=tmp_path,
            env={"WORD": "hello", "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=file,
        )
    assert (program.stdin, program.stdout) == (None, None)
    status, written = outcome(loop, program)
    assert (status, written) == (0, {program.stderr: f"{tmp_path}\n".encode()})
    assert out.read_bytes() == b"hello\n"


class Supervise:
    """Starts a program again until it has ended so many times, in calls of the loop's."""

    def __init__(self, count: int) -> None:
        self.ends: list[tuple[Any, int]] = []
        self.words: list[bytes] = []
        self.count = count

    def start(self, loop: Loop) -> None:
        loop.spawn([sys.executable, "-c", "print(input())"], pipes=["stdin", "stdout"], token="program")

    def on_open(self, connection: Connection) -> None:
        assert connection.token == "program"
        assert connection.peer == "unix:"
        connection.write(b"word\n")

    def on_data(self, connection: Connection, data: bytes) -> None:
        self.words.append(data)

    def on_event(self, loop: Loop, event: Event) -> None:
        if event.kind == omnipoll.CHILD:
            self.ends.append((event.token, event.value))
        if len(self.ends) < self.count:
            self.start(loop)
        else:
            loop.stop(LONG)


def test_programs_are_started_in_calls(engine: str) -> None:
    handler = Supervise(3)
    with Loop(engine, handler=handler) as loop:
        loop.poller.post("start")
        loop.run()
    assert handler.ends == [("program", 0)] * 3
    assert b"".join(handler.words) == b"word\n" * 3


def test_its_end_is_the_loops(loop: Loop) -> None:
    """Whatever other programs are started meanwhile, and waited for."""
    programs = [loop.spawn(["sh", "-c", f"exit {number}"], pipes=()) for number in range(5)]
    subprocess.run(["true"], check=True)
    statuses: dict[Program, int] = {}
    while len(statuses) < 5:
        for event in loop.wait(LONG):
            statuses[event.token] = os.waitstatus_to_exitcode(event.value)
    assert [statuses[program] for program in programs] == list(range(5))


def test_what_can_not_be_started_leaves_nothing(loop: Loop) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError, match="no such program"):
        loop.spawn(["no such program"])
    with pytest.raises(ValueError, match="'out' is no stream"):
        loop.spawn(["true"], pipes=["out"])
    with pytest.raises(TypeError, match="stdin"):
        loop.spawn(["true"], stdin=subprocess.DEVNULL)
    with pytest.raises(PermissionError, match="thread that has made it"):
        in_thread(lambda: loop.spawn(["true"]))()
    assert os.listdir("/proc/self/fd") == before
    assert loop.wait(0) == []
    loop.stop(0)
    with pytest.raises(ValueError, match="stopped"):
        loop.wait(0)
        loop.spawn(["true"])
    loop.close()
    with pytest.raises(ValueError, match="closed loop"):
        loop.spawn(["true"])
