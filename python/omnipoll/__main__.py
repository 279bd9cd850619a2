"""The commands of `python -m omnipoll`: `info` and `compare`."""

from __future__ import annotations

import argparse
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
        return int(chosen.run(chosen))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
