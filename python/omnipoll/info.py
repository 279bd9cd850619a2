"""Shows which engines and features this machine has, and why not where it hasn't."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import omnipoll
from omnipoll import Poller

HELP = "which engines and features this machine has, and why not"
ENGINES = ("select", "poll", "epoll", "io_uring")

CAPABILITIES = {
    omnipoll.REPORTS_HANGUP: "distinguishes hang-up and error from readiness",
    omnipoll.REPORTS_READ_CLOSED: "reports that the peer has ended its direction",
    omnipoll.NATIVE_EDGE: "edge trigger of its own (rearm is not needed)",
    omnipoll.HAS_EXCLUSIVE: "exclusive wake-ups (EXCLUSIVE)",
}

# Every architecture numbers it alike: asm-generic/unistd.h.
PIDFD_OPEN = 434


def engine(name: str) -> dict[str, Any]:
    """Whether an engine is available, what it can report, and why it is refused."""
    try:
        with Poller(name) as poller:
            reports = [words for bit, words in CAPABILITIES.items() if poller.capabilities & bit]
            return {"available": True, "reason": None, "reports": reports, "features": features_of(name)}
    except (OSError, ValueError) as error:
        return {"available": False, "reason": reason(error), "reports": [], "features": {}}


def features_of(name: str) -> dict[str, dict[str, Any]]:
    """Which features of the kernel an engine uses, and why not the others."""
    return {
        one.name: {
            "used": one.error is None,
            "linux": one.linux,
            "reason": None if one.error is None else reason(one.error),
        }
        for one in omnipoll.engine_features(name)
    }


def reason(error: Exception) -> str:
    """An exception in words, without its number."""
    return getattr(error, "strerror", None) or str(error)


def default_engine() -> str | None:
    """The engine of a poller that names none; none where OMNIPOLL_ENGINE is wrong."""
    try:
        with Poller() as poller:
            return poller.engine
    except (OSError, ValueError):
        return None


def system_call(number: int, *arguments: Any) -> int:
    """The system call of that number; an error is an OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def pidfd() -> None:
    """pidfd_open(2), Linux 5.3."""
    os.close(system_call(PIDFD_OPEN, os.getpid(), 0))


def reuse_port() -> None:
    """SO_REUSEPORT, Linux 3.9."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def batches() -> None:
    """recvmmsg(2) and sendmmsg(2) of no message at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        received = libc.recvmmsg(one.fileno(), None, 0, socket.MSG_DONTWAIT, None)
        if received < 0 or libc.sendmmsg(one.fileno(), None, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


FEATURES: dict[str, tuple[str, Callable[[], None]]] = {
    "pidfd": ("children are waited for without SIGCHLD", pidfd),
    "SO_REUSEPORT": ("each worker has a listening socket of its own", reuse_port),
    "UDP batches": ("many datagrams to a system call (recvmmsg, sendmmsg)", batches),
}


def feature(name: str) -> dict[str, Any]:
    """Whether the system has a feature, tried out, and why not."""
    purpose, probe = FEATURES[name]
    try:
        probe()
    except (OSError, ValueError, AttributeError) as error:
        return {"available": False, "reason": reason(error), "purpose": purpose}
    return {"available": True, "reason": None, "purpose": purpose}


def number_in(path: str) -> int | None:
    """The number that is all of a file; None where there is no such file, or it says 'max'."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def own_limit(which: int) -> tuple[int | None, int | None]:
    """The soft and the hard limit of this process; None is unlimited."""
    soft, hard = resource.getrlimit(which)
    return (
        None if soft == resource.RLIM_INFINITY else soft,
        None if hard == resource.RLIM_INFINITY else hard,
    )


def groups() -> Iterator[str]:
    """The folders of the control group that counts processes, and of those around it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            root = Path("/sys/fs/cgroup", controllers)
            here = root / path.lstrip("/")
            yield from (str(folder) for folder in (here, *here.parents) if root in (folder, *folder.parents))


def most_tasks() -> int | None:
    """How many processes and threads there may be at once; None where nothing limits them."""
    limits = [number_in("/proc/sys/kernel/threads-max"), number_in("/proc/sys/kernel/pid_max")]
    if os.geteuid() != 0:  # RLIMIT_NPROC is not for root.
        limits.append(own_limit(resource.RLIMIT_NPROC)[0])
    try:
        limits += [number_in(f"{folder}/pids.max") for folder in groups()]
    except OSError:
        pass
    return min((limit for limit in limits if limit is not None), default=None)


def limits() -> dict[str, Any]:
    """The limits that a server meets first."""
    soft, hard = own_limit(resource.RLIMIT_NOFILE)
    return {
        "descriptors": soft,
        "descriptors at most": hard,
        "processes and threads": most_tasks(),
        "clients that wait to be accepted": number_in("/proc/sys/net/core/somaxconn"),
        "descriptors watched by epoll": number_in("/proc/sys/fs/epoll/max_user_watches"),
    }


def gather() -> dict[str, Any]:
    """All that `python -m omnipoll info --json` prints."""
    return {
        "omnipoll": omnipoll.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "default_engine": default_engine(),
        "engines": {name: engine(name) for name in ENGINES},
        "features": {name: feature(name) for name in FEATURES},
        "limits": limits(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("OMNIPOLL_")
        },
    }


Section = tuple[str, list[tuple[str, str]]]


def sections(facts: dict[str, Any]) -> list[Section]:
    """The facts as titles, each with pairs of a name and what is said of it."""
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    machine = f"Python {facts['python']}, {facts['system']}, {cores}"
    engines = [
        (name, engine_in_words(one, name == facts["default_engine"]))
        for name, one in facts["engines"].items()
    ]
    features = [
        (name, ("yes: " if one["available"] else "no: ") + (one["reason"] or one["purpose"]))
        for name, one in facts["features"].items()
    ]
    bounds = [
        (name, "unlimited" if value is None else f"{value:,}") for name, value in facts["limits"].items()
    ]
    environment = list(facts["environment"].items()) or [("OMNIPOLL_*", "nothing is set")]
    return [
        (
            f"omnipoll {facts['omnipoll']}",
            [("runs on", machine), ("default engine", default_in_words(facts))],
        ),
        ("Engines", engines),
        ("Features of the system", features),
        ("Limits", bounds),
        ("Environment", environment),
    ]


def default_in_words(facts: dict[str, Any]) -> str:
    """The default engine, or what keeps a poller from having one."""
    if facts["default_engine"] is None:
        return f"none: OMNIPOLL_ENGINE={facts['environment'].get('OMNIPOLL_ENGINE', '')} is not available"
    return str(facts["default_engine"])


def engine_in_words(one: dict[str, Any], default: bool) -> str:
    """Whether an engine is available, what it reports and what it uses of the kernel, in lines."""
    if not one["available"]:
        return f"no: {one['reason']}"
    features = [
        f"{name}, Linux {said['linux']}: " + ("in use" if said["used"] else f"no, {said['reason']}")
        for name, said in one["features"].items()
    ]
    lines = [*one["reports"], *features]
    return "yes" + (", the default" if default else "") + "".join(f"\n- {words}" for words in lines)


def print_plain(every: list[Section]) -> None:
    """Prints in text alone."""
    for title, lines in every:
        print(title)
        width = max(len(name) for name, _ in lines)
        for name, words in lines:
            first, *rest = words.split("\n")
            print(f"  {name:{width}}  {first}")
            for line in rest:
                print(f"  {'':{width}}  {line}")
        print()


def print_rich(every: list[Section]) -> None:
    """Prints in colour."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for title, lines in every:
        table = Table.grid(padding=(0, 2))
        for name, words in lines:
            colour = {"yes": "green", "no:": "yellow"}.get(words[:3], "")
            table.add_row(Text(f"  {name}", "bold"), Text(words, colour))
        console.print(Text(title, "bold underline"), table, "")


def has_rich() -> bool:
    """Whether rich is here, and there is a terminal for its colours."""
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return sys.stdout.isatty()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--json", action="store_true", help="print it for programs")


def run(options: argparse.Namespace) -> int:
    """Prints it; returns the exit status."""
    facts = gather()
    if options.json:
        print(json.dumps(facts, indent=2))
    elif has_rich():
        print_rich(sections(facts))
    else:
        print_plain(sections(facts))
    return 0
