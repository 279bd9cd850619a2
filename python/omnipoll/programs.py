"""Programs that a loop starts: what `Loop.spawn` does."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnipoll import Connection, Loop, _native

__all__ = ["Program"]

STREAMS = ("stdin", "stdout", "stderr")


class Program:
    """A program that Loop.spawn() has started: its process, and the connections to its streams."""

    stdin: Connection | None = None
    stdout: Connection | None = None
    stderr: Connection | None = None

    def __init__(self, pid: int) -> None:
        """Made by Loop.spawn()."""
        self.pid = pid

    def __repr__(self) -> str:
        """With its process."""
        return f"<omnipoll.programs.Program {self.pid}>"


def spawn(
    loop: Loop,
    args: str | Sequence[Any],
    handler: _native._Handler | None = None,
    *,
    pipes: Sequence[str] = STREAMS,
    token: object = None,
    **options: Any,
) -> Program:
    """`Loop.spawn`."""
    for name in pipes:
        if name not in STREAMS:
            raise ValueError(f"{name!r} is no stream of a program: there are {', '.join(STREAMS)}")
    with ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in pipes}
        for end in (end for pair in pairs.values() for end in pair):
            stack.enter_context(end)
        theirs: dict[str, Any] = {name: pair[1] for name, pair in pairs.items()}
        process = subprocess.Popen(args, **theirs, **options)
        program = Program(process.pid)
        token = program if token is None else token
        try:
            for name, (ours, _) in pairs.items():
                setattr(program, name, loop.connect(f"fd:{ours.fileno()}", handler, token=token))
            loop.poller.child_add(process.pid, token)
        except BaseException:
            process.kill()
            process.wait()
            raise
    # The loop's poller waits for it. A Popen that does not know that would, too.
    process.returncode = 0
    return program
