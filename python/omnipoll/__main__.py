"""The commands of `python -m omnipoll`: `info` and `compare`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

import omnipoll
from omnipoll import compare, info


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command that `words`, or the command line, asks for; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m omnipoll", description="What omnipoll does on this machine."
    )
    parser.add_argument("--version", action="version", version=f"omnipoll {omnipoll.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in (info, compare):
        name = command.__name__.rpartition(".")[2]
        options = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_options(options)
        options.set_defaults(run=command.run)
    chosen = parser.parse_args(words)
    try:
        status = int(chosen.run(chosen))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has read enough. What is still in the buffer must not fail at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
