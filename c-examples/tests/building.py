"""Builds the examples, and says which there are and what they run on."""

import atexit
import ctypes
import functools
import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

from tests.servers import run

HERE = Path(__file__).resolve().parent.parent
LIBDIR = Path(os.environ.get("OMNIPOLL_LIBDIR", HERE.parent / "target" / "release")).resolve()
BUILD = HERE.parent / "target" / f"test-examples-{os.getpid()}"  # two runs at a time are fine
LIB = BUILD / "lib"  # the library under the names it has once installed

IO_URING = ctypes.CDLL(str(LIBDIR / "libomnipoll_capi.so")).omni_engine_available(4) == 1
ENGINES = ("select", "poll", "epoll") + (("io_uring",) if IO_URING else ())
RAW_ENGINES = ("select", "poll", "epoll")
ONE_PROCESS = ("reactor", "cores", "thread")
MODELS = (*ONE_PROCESS, "fork", "prefork")
PROGRAMS = sorted(path.stem for path in HERE.glob("*.c"))
ECHO_SERVERS = [("echo", engine) for engine in ENGINES] + [
    (f"raw_{engine}", engine) for engine in RAW_ENGINES
]
BUILDS = ("sanitized", "plain")
RUST = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "debug" / "examples"


def source(program):
    """Of a program here, or of one in adapters/."""
    path = HERE / f"{program}.c"
    return path if path.exists() else HERE / "adapters" / path.name


def build_line(program):
    """The build line in a program's comment."""
    return re.search(r"^ \* Build: +(.+)$", source(program).read_text(), re.M).group(1)


def is_known(program):
    """Whether pkg-config knows the library of an adapter's program, which is the last in its build line."""
    library = build_line(program).rstrip(")").split()[-1]
    return (
        subprocess.run(["sh", "-c", f"pkg-config --exists {library}"], stderr=subprocess.DEVNULL).returncode
        == 0
    )


ALL_ADAPTERS = sorted(path.stem for path in (HERE / "adapters").glob("*.c"))
ADAPTERS = [program for program in ALL_ADAPTERS if is_known(program)]


def build_sanitized():
    flags = "-std=c11 -g -O1 -Wall -Wextra -Wpedantic -Werror"
    flags += " -fsanitize=address,undefined -fno-sanitize-recover=all"
    library = f"LIBOMNIPOLL={LIB / 'libomnipoll.a'}"
    run(["make", "-j2", f"BUILD={BUILD / 'sanitized'}", f"CFLAGS={flags}", library], cwd=HERE)


def build_plain():
    """Runs the documented lines where pkg-config finds this tree's library."""
    tools = BUILD / "tools"
    tools.mkdir(exist_ok=True)
    pkg_config = tools / "pkg-config"
    include = HERE.parent / "include"
    # The library of an adapter comes after ours.
    others = f'shift 3; [ $# = 0 ] || exec {shutil.which("pkg-config")} --cflags --libs "$@"'
    ours = f"echo -I{include} -L{LIB} -Wl,-rpath,{LIB} -lomnipoll"
    pkg_config.write_text(f"#!/bin/sh\n{ours}\n{others}\n")
    pkg_config.chmod(0o755)
    (BUILD / "plain").mkdir(exist_ok=True)
    for header in (*HERE.glob("*.h"), *(HERE / "adapters").glob("*.h")):
        shutil.copy(header, BUILD / "plain")
    for program in (*PROGRAMS, *ADAPTERS):
        shutil.copy(source(program), BUILD / "plain")
        path = f"{tools}:{os.environ['PATH']}"
        run(["sh", "-c", build_line(program)], cwd=BUILD / "plain", env={"PATH": path})


def stage_library():
    LIB.mkdir(parents=True, exist_ok=True)
    for built, installed in (
        ("libomnipoll_capi.a", "libomnipoll.a"),
        ("libomnipoll_capi.so", "libomnipoll.so"),
        ("libomnipoll_capi.so", "libomnipoll.so.0"),
    ):
        shutil.copy(LIBDIR / built, LIB / installed)


def build_rust():
    run(["cargo", "build", "--quiet", "-p", "omnipoll", "--examples"], cwd=HERE.parent)


@functools.cache  # once, for all the processes that run tests
def build_all():
    raise_descriptor_limit()
    atexit.register(shutil.rmtree, BUILD, ignore_errors=True)
    stage_library()
    build_sanitized()
    build_plain()
    build_rust()


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
