"""Builds the C examples and runs all examples, on every engine, with real clients.

    python3 c-examples/test_examples.py         (or through pytest)

Needs python3, cc, make and the built library: OMNIPOLL_LIBDIR names the directory that holds
libomnipoll_capi.{so,a}, by default target/release. Each C program is built twice: with the
sanitizers against the static library, and by the very line its comment gives against the
shared one. The FFI examples need luajit, ruby, and node with npm, the servers redis-cli,
redis-benchmark, redis-server, PostgreSQL and wrk; what is missing is installed with apt-get by
root, and a test that can't have it is skipped, or fails when CI=true. The adapters need the
libraries that they adapt.

tests/ has what each example must do; here is which is run with what.
"""

import io
import itertools
import multiprocessing
import os
import sys
import unittest

from tests import adapters
from tests.broadcast import Broadcast
from tests.building import BUILD, BUILDS, ECHO_SERVERS, ENGINES, HERE, MODELS, RUST, build_all
from tests.chat import ChatServer
from tests.dns import Forwarder
from tests.echo import CEchoServer, EchoByModel, EchoInAnotherLoop, EchoOnALoop
from tests.example import Example
from tests.foreign import ForeignEchoServer
from tests.http import HttpServer
from tests.kv import KeyValueServer
from tests.proxy import Proxy
from tests.readme import Readme  # noqa: F401 (a test case as it is)
from tests.restart import Restart
from tests.rooms import Rooms
from tests.signals import SignalServer
from tests.small import SmallPrograms
from tests.supervise import Supervisor


def setUpModule():
    build_all()


def define(name, behaviour, **attributes):
    """A test case of its own for each program, engine and build."""
    globals()[name] = type(name, (behaviour, Example), {"__module__": __name__, **attributes})


for engine in ENGINES:
    define(f"Rooms_{engine}_rust", Rooms, command=[str(RUST / "rooms"), "--engine", engine])
for build in BUILDS:
    define(f"Small_{build}", SmallPrograms, directory=BUILD / build)
    for program, engine in ECHO_SERVERS:
        command = [str(BUILD / build / program), "--engine", engine]
        define(f"Echo_{program}_{engine}_{build}", CEchoServer, command=command)
    for engine in ENGINES:
        define(f"Restart_{engine}_{build}", Restart, command=[str(BUILD / build / "restart")], engine=engine)
        command = [str(BUILD / build / "dns"), "--engine", engine]
        define(f"Dns_{engine}_{build}", Forwarder, command=command)
        command = [str(BUILD / build / "chat"), "--engine", engine]
        define(f"Chat_{engine}_{build}", ChatServer, command=command)
        command = [str(BUILD / build / "rooms"), "--engine", engine]
        define(f"Rooms_{engine}_{build}", Rooms, command=command)
        command = [str(BUILD / build / "proxy"), "--engine", engine]
        define(f"Proxy_{engine}_{build}", Proxy, command=command, echo=[str(BUILD / build / "echo")])
        command = [str(BUILD / build / "pulled"), "--engine", engine]
        define(f"Pulled_{engine}_{build}", EchoOnALoop, command=command)
        command = [str(BUILD / build / "supervise")]
        define(f"Supervise_{engine}_{build}", Supervisor, command=command, engine=engine)
        command = [str(BUILD / build / "signals"), "--engine", engine]
        define(f"Signals_{engine}_{build}", SignalServer, command=command)
    for model in MODELS[1:]:
        command = [str(BUILD / build / "proxy"), "--model", model]
        define(f"Proxy_{model}_{build}", Proxy, command=command, echo=[str(BUILD / build / "echo")])
    for program, behaviour in (
        ("serve", EchoByModel),
        ("kv", KeyValueServer),
        ("http", HttpServer),
        ("broadcast", Broadcast),
    ):
        # The plain build on one engine: what an engine changes, the sanitized one shows.
        for model, engine in itertools.product(MODELS, ENGINES if build == "sanitized" else ENGINES[-1:]):
            command = [str(BUILD / build / program), "--model", model, "--engine", engine]
            define(f"Serving_{program}_{model}_{engine}_{build}", behaviour, command=command, model=model)
    for program, engine in itertools.product(("in_glib", "in_libuv"), ENGINES[2:]):
        command = [str(BUILD / build / program), "--engine", engine]
        define(f"Embedded_{program}_{engine}_{build}", EchoInAnotherLoop, command=command, program=program)
    for adapter in adapters.PROGRAMS:
        engines = ENGINES if build == "sanitized" else ENGINES[-1:]
        define(f"Adapter_{adapter.program}_{build}", adapter, directory=BUILD / build, engines=engines)
for program, script in (
    ("luajit", "echo.lua"),
    ("ruby", "echo.rb"),
    ("node", "echo.mjs"),
    ("luajit", "pulled.lua"),
    ("ruby", "pulled.rb"),
    ("node", "pulled.mjs"),
    ("python3", "pulled.py"),
):
    for engine in ENGINES:
        command = [program, str(HERE / "ffi" / script), "--engine", engine]
        name = f"Foreign_{script.split('.')[0]}_{program}_{engine}"
        define(name, ForeignEchoServer, program=program, command=command)


def run_class(name):
    """Runs the tests of a class; returns what was printed, and how many passed, failed, were skipped."""
    output = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(globals()[name])
    result = unittest.TextTestRunner(output, verbosity=2).run(suite)
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    return output.getvalue(), result.testsRun - failed - skipped, failed, skipped


def run_all():
    """Runs all classes, a few at a time: they wait more than they compute."""
    build_all()
    names = [name for name, it in globals().items() if isinstance(it, type) and issubclass(it, Example)]
    totals = [0, 0, 0]
    # Forked, so that what was built is known to be.
    with multiprocessing.get_context("fork").Pool(2 * len(os.sched_getaffinity(0))) as pool:
        for output, *counts in pool.imap_unordered(run_class, names):
            print(output, end="", flush=True)
            totals = [sum(pair) for pair in zip(totals, counts)]
    return totals


def run_named():
    """Runs what the command line names."""
    result = unittest.main(exit=False, verbosity=2).result
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    # A build that fails is no test that ran.
    return max(0, result.testsRun - failed - skipped), failed, skipped


if __name__ == "__main__":
    passed, failed, skipped = run_named() if sys.argv[1:] else run_all()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(failed > 0)
