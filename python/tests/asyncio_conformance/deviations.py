"""The list of the cases that our loop fails, and why."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LIST = Path(__file__).resolve().parent.parent / "asyncio_deviations.txt"
LINE = re.compile(r"(3\.\d+)(?:-(3\.\d+))?\s+(\S+)\s+(\S.*)")


def read(path: Path = LIST) -> dict[str, str]:
    """The reasons by the names of the cases, for this version of Python."""
    reasons = {}
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            sys.exit(f"{path}: not versions, case and reason: {line}")
        first, last, case, reason = match.groups()
        if minor(first) <= sys.version_info[1] <= minor(last or first):
            reasons[case] = reason
    return reasons


def minor(version: str) -> int:
    return int(version.partition(".")[2])
