"""Builds what races, and says what could not be built."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
BENCH = TREE / "crates" / "omnipoll-bench"
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", TREE / "target")) / "release"
BUILT = TREE / "target" / "bench"
EXAMPLES = TREE / "target" / "examples"
PYTHON = TREE / ".venv" / "bin" / "python"

# Each of these by itself: what needs a crate that is not available is missing, and nothing else.
CARGO = (
    ("-p", "omnipoll-capi", "-p", "omnipoll-bench"),
    ("-p", "omnipoll-bench", "--bin", "echo_compio", "--features", "compio"),
)
LIBRARIES = {
    "libuv": "libuv1-dev",
    "libevent": "libevent-dev",
    "libev": "libev-dev",
    "liburing": "liburing-dev",
}


def build() -> None:
    for what in CARGO:
        subprocess.run(["cargo", "build", "--release", "--quiet", *what], cwd=TREE, check=what is CARGO[0])
    library = RELEASE / "libomnipoll_capi.a"
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "build.log").open("w") as log:
        command = ["make", "-k", "-C", str(BENCH), f"BUILD={BUILT}", f"OURS={library}"]
        subprocess.run(command, stdout=log, stderr=log)
        command = [
            "make",
            "-k",
            "-C",
            str(TREE / "c-examples"),
            f"BUILD={EXAMPLES}",
            f"LIBOMNIPOLL={library}",
        ]
        subprocess.run(command, stdout=log, stderr=log)


def program(name: str) -> str | None:
    """Where a program is, or None when it could not be built."""
    return shutil.which(name, path=f"{BUILT}:{RELEASE}:{EXAMPLES}")


def choose(commands: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Those whose program was built, with its path; and why the others are missing."""
    chosen, missing = {}, {}
    for name, (first, *arguments) in commands.items():
        if path := program(first):
            chosen[name] = [path, *arguments]
        else:
            missing[name] = f"{first} could not be built"
    return chosen, missing


def python_has(module: str) -> bool:
    """Whether the Python of .venv can import it. Not from here, where a file may have its name."""
    command = [str(PYTHON), "-c", f"import {module}"]
    return PYTHON.exists() and subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL).returncode == 0


def missing() -> dict[str, str]:
    """What is not there at all, and why. Servers that were not built are named where they race."""
    command = ["make", "-s", "-C", str(BENCH), "missing"]
    names = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    found = {name: f"not installed ({LIBRARIES[name]})" for name in names}
    if not python_has("omnipoll"):
        found["Python"] = "there is no package omnipoll in .venv (make python)"
    return found


def engines() -> list[str]:
    """The names of our engines that this machine has."""
    library = ctypes.CDLL(str(RELEASE / "libomnipoll_capi.so"))
    library.omni_engine_name.restype = ctypes.c_char_p
    names = []
    for number in range(1, 100):
        if (name := library.omni_engine_name(number)) is None:
            break
        if library.omni_engine_available(number):
            names.append(name.decode())
    return names
