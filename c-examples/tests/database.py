"""Servers of other projects: started on a free port, PostgreSQL's with a cluster of its own."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile

from tests.servers import STEP_SECONDS, run, wait_until


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Program:
    """A server, from when it accepts connections to its end."""

    def __init__(self, command, port, end=signal.SIGKILL):
        self.end = end
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        command = [str(word) for word in command]
        self.process = subprocess.Popen(command, cwd="/", stdout=self.output, stderr=subprocess.STDOUT)
        self.port = port

    def __enter__(self):
        wait_until(self.accepts, f"{self.process.args} accepts connections")
        return self

    def accepts(self):
        if self.process.poll() is not None:
            self.output.seek(0)
            raise AssertionError(f"{self.process.args} has ended:\n{self.output.read()}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_):
        self.process.send_signal(self.end)
        self.process.wait(STEP_SECONDS)
        self.output.close()


def postgres(enter):
    """A new cluster and its server, whose user is "tester". It refuses to run as root: another user does.
    `enter` takes what has to be closed."""
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    folder = enter(tempfile.TemporaryDirectory(prefix="postgres"))
    user = []
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        shutil.chown(folder, "nobody")
    data, port = f"{folder}/data", free_port()
    run([*user, f"{programs}/initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"], cwd="/")
    settings = f"fsync=off listen_addresses=127.0.0.1 unix_socket_directories={folder}"
    options = [word for setting in settings.split() for word in ("-c", setting)]
    command = [*user, f"{programs}/postgres", "-D", data, "-p", port, *options]
    server = enter(Program(command, port, signal.SIGQUIT))
    wait_until(lambda: is_ready(programs, port), "PostgreSQL answers")
    return server


def is_ready(programs, port):
    command = [f"{programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, timeout=STEP_SECONDS).returncode == 0
