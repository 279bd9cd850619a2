"""Builds the examples, and says which there are and what they run on."""

import atexit
import ctypes
import functools
import os
import re
import resource
import shutil
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


def build_sanitized():
    flags = "-std=c11 -g -O1 -Wall -Wextra -Wpedantic -Werror"
    flags += " -fsanitize=address,undefined -fno-sanitize-recover=all"
    library = f"LIBOMNIPOLL={LIB / 'libomnipoll.a'}"
    run(["make", "-j2", f"BUILD={BUILD / 'sanitized'}", f"CFLAGS={flags}", library], cwd=HERE)


def build_line(program):
    """The build line in a program's comment."""
    return re.search(r"^ \* Build: +(.+)$", (HERE / f"{program}.c").read_text(), re.M).group(1)


def build_plain():
    """Runs the documented lines where pkg-config finds this tree's library."""
    tools = BUILD / "tools"
    tools.mkdir(exist_ok=True)
    pkg_config = tools / "pkg-config"
    include = HERE.parent / "include"
    pkg_config.write_text(f"#!/bin/sh\necho -I{include} -L{LIB} -Wl,-rpath,{LIB} -lomnipoll\n")
    pkg_config.chmod(0o755)
    (BUILD / "plain").mkdir(exist_ok=True)
    for header in HERE.glob("*.h"):
        shutil.copy(header, BUILD / "plain")
    for program in PROGRAMS:
        shutil.copy(HERE / f"{program}.c", BUILD / "plain")
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


@functools.cache  # once, for all the processes that run tests
def build_all():
    raise_descriptor_limit()
    atexit.register(shutil.rmtree, BUILD, ignore_errors=True)
    stage_library()
    build_sanitized()
    build_plain()


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
