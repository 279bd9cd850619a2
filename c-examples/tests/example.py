"""What every test case is, and how it gets the programs that it needs."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import unittest

from tests.building import BUILD, HERE
from tests.clients import connect
from tests.servers import TEST_SECONDS


class Example(unittest.TestCase):
    def setUp(self):
        def too_long(*_):
            raise TimeoutError(f"the test took longer than {TEST_SECONDS} s")

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TEST_SECONDS)
        self.addCleanup(signal.alarm, 0)
        self.sockets = contextlib.ExitStack()
        self.addCleanup(self.sockets.close)

    def needs(self, program, package):
        """Passes if there is such a program, or it can be installed."""
        if shutil.which(program) or install(["apt-get", "install", "-y", package]):
            return
        self.skip_unless_ci(f"{program} is not here, and apt-get could not install it")

    def skip_unless_ci(self, missing):
        if os.environ.get("CI") == "true":
            self.fail(missing)
        self.skipTest(missing)

    def connect(self, server, **options):
        return self.sockets.enter_context(connect(server.port, **options))


def install(command):
    signal.alarm(0)  # how long this takes depends on the network
    try:
        with (BUILD / "installing").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # another process may be installing the same
            done = subprocess.run(command, cwd=HERE / "ffi", timeout=600, stdout=subprocess.DEVNULL)
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        signal.alarm(TEST_SECONDS)
