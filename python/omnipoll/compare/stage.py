"""Programs that run beside this one: started together, waited for in one wait, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import omnipoll
from omnipoll import Event, Poller

MANNERS = 5  # seconds that a program has to end when it is asked to


class Failed(Exception):
    """Why a combination could not be measured, in words."""


class Program:
    """One program, which is spoken with in lines."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Starts it. Failed, where there is no such program."""
        self.name = name
        self.received = b""
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.complaints,
                start_new_session=True,
            )
        except OSError as error:
            self.complaints.close()
            raise Failed(f"{name} can't be started: {error}") from None
        assert self.process.stdin and self.process.stdout
        self.ears, self.mouth = self.process.stdin, self.process.stdout

    @property
    def session(self) -> int:
        """The session of the program and all its children."""
        return self.process.pid

    def send(self, line: str) -> None:
        """Says a line to the program."""
        with suppress(BrokenPipeError):  # That it has ended is found out by the wait for its answer.
            self.ears.write(line.encode() + b"\n")
            self.ears.flush()

    def obituary(self) -> str:
        """How the program ended, with the last line it has written to its standard error."""
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self.complaints.seek(0)
        last = self.complaints.read().decode(errors="replace").splitlines()[-1:]
        return f"{self.name} {how}" + "".join(f": {line}" for line in last)

    def end(self) -> None:
        """Ends the program and whatever it has started."""
        with suppress(OSError):
            self.ears.close()
        if self.process.returncode is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(MANNERS)
        with suppress(ProcessLookupError):
            os.killpg(self.session, signal.SIGKILL)
        self.process.wait()
        self.mouth.close()
        self.complaints.close()


class Stage:
    """The programs of one measurement. They end with it."""

    def __init__(self) -> None:
        """An empty stage."""
        self.poller = Poller("epoll")
        self.programs: list[Program] = []

    def start(self, name: str, command: Sequence[str]) -> Program:
        """Starts a program; `name` is what it is called in messages."""
        program = Program(name, command)
        self.programs.append(program)
        self.poller.add(program.mouth, omnipoll.READ, program)
        self.poller.child_add(program.process, program)
        return program

    def line_of(self, program: Program, seconds: float) -> str:
        """The program's next line. Failed, when any of the programs ends or it takes too long."""
        deadline = time.monotonic() + seconds
        while b"\n" not in program.received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"{program.name} has not answered for {seconds:.0f} s")
            self.listen(left)
        line, _, program.received = program.received.partition(b"\n")
        return line.decode()

    def listen(self, seconds: float) -> None:
        """Waits for what the programs say. Failed, when one of them ends."""
        for event in self.poller.wait(seconds):
            self._take(event)

    def _take(self, event: Event) -> None:
        program = event.token
        if event.kind == omnipoll.CHILD:
            # The poller has reaped it, and Popen would not find out.
            program.process.returncode = os.waitstatus_to_exitcode(event.value)
            raise Failed(program.obituary())
        data = os.read(event.value, 1 << 16)
        program.received += data
        if not data:
            self.poller.remove(program.mouth)

    def __enter__(self) -> Stage:
        """The stage itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the programs."""
        self.poller.close()
        for program in reversed(self.programs):
            program.end()
