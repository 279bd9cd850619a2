"""What the figures were measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from pathlib import Path

import build

# Crates of other people that race.
CRATES = ("compio", "mio", "polling", "tokio")
HEADERS = {
    "libuv": ("/usr/include/uv/version.h", r"UV_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)"),
    "libevent": ("/usr/include/event2/event-config.h", r'EVENT__VERSION "(.*)"'),
    "libev": ("/usr/include/ev.h", r"EV_VERSION_(?:MAJOR|MINOR) (\d+)"),
}


def said(*command: str) -> str:
    """The first line that a command prints; words where there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=build.BENCH)
    except FileNotFoundError:
        return f"no {command[0]}"
    return (done.stdout.splitlines() or ["unknown"])[0].strip()


def load() -> str:
    """How many processes wanted a core, in the last minute."""
    return f"{os.getloadavg()[0]:.2f}"


def describe() -> dict[str, str]:
    cpu = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M) or [platform.machine()]
    lock = (build.TREE / "Cargo.lock").read_text()
    facts = {
        "kernel": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{cpu[0].strip()}, {len(os.sched_getaffinity(0))} cores",
        "load before": load(),
        "descriptor limit": f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,} a process",
        "C": f"`{said('make', '-s', 'flags')}`, {said('cc', '--version')}",
        "Rust": f"`--release`: {profile()}, {said('rustc', '--version')}",
        "Python": platform.python_version(),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
    }
    for name, (header, pattern) in HEADERS.items():
        path = Path(header)
        facts[name] = ".".join(re.findall(pattern, path.read_text())) if path.exists() else "not installed"
    for name in CRATES:
        version = re.search(rf'name = "{name}"\nversion = "(.*)"', lock)
        facts[name] = version[1] if version else "not in Cargo.lock"
    facts["wrk"] = said("sh", "-c", "wrk -v 2>&1").split(" Copyright")[0]
    facts["redis-benchmark"] = said("redis-benchmark", "--version")
    facts["HAProxy"] = said("sh", "-c", "PATH=$PATH:/usr/sbin haproxy -v").split(" - ")[0]
    facts["nginx"] = said("sh", "-c", "PATH=$PATH:/usr/sbin nginx -v 2>&1")
    return facts


def profile() -> str:
    """The release profile, as Cargo.toml has it."""
    section = re.search(r"\[profile\.release\]\n((?:.+\n?)*)", (build.TREE / "Cargo.toml").read_text())
    return ", ".join(section[1].split("\n")[:2]).strip(", ") if section else "the default profile"
