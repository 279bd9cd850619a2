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

# Each of these by itself: what needs a crate that is not to be had is missing, and nothing else.
CARGO = (
    ("-p", "omnipoll-capi", "-p", "omnipoll-bench"),
    ("-p", "omnipoll-bench", "--bin", "echo_compio", "--features", "compio"),
)


def build() -> None:
    for what in CARGO:
        subprocess.run(["cargo", "build", "--release", "--quiet", *what], cwd=TREE, check=what is CARGO[0])
    library = RELEASE / "libomnipoll_capi.a"
    log = BUILT / "build.log"
    BUILT.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        command = ["make", "-k", "-C", str(BENCH / "echo"), f"BUILD={BUILT}", f"OURS={library}"]
        subprocess.run(command, stdout=stream, stderr=stream)


def program(name: str) -> str | None:
    """Where a program is, or None when it could not be built."""
    return shutil.which(name, path=f"{BUILT}:{RELEASE}")


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
