"""Server processes and other programs: started, watched, and bounded in time."""

import contextlib
import fcntl
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TEST_SECONDS = 90  # no test takes longer, whatever happens
STEP_SECONDS = 30  # nor any single step that can hang


def environment(extra=None):
    # No sanitizer option of the caller's may hide a finding.
    return {**os.environ, "ASAN_OPTIONS": "", "UBSAN_OPTIONS": "print_stacktrace=1", **(extra or {})}


def run(command, cwd=None, env=None, seconds=TEST_SECONDS):
    """Runs to the end and returns what was printed; anything but success is an error."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(env),
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Server:
    """A server process, from the line with its port to its end."""

    def __init__(self, command, descriptors=None, env=None):
        def limit_descriptors():
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        # A look moves the offset, which the server's descriptor shares. The mode "a" does not set this.
        fcntl.fcntl(self.errors, fcntl.F_SETFL, os.O_APPEND)
        self.process = subprocess.Popen(
            command,
            env=environment(env),
            preexec_fn=limit_descriptors,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        line = self.process.stdout.readline()  # setUp's alarm bounds it
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)( unix:\S+)*\n", line)
        if found is None:
            errors = self.stderr()
            self.__exit__()
            raise AssertionError(f"{command} printed {line!r}:\n{errors}")
        self.port = int(found.group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Those that it has started, too, which may be there after a test that fails.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def wait_until_said(self, text):
        wait_until(lambda: text in self.stderr(), f"the server says {text!r}")

    def wait_until_idle(self):
        """Passes when the server sleeps: one that spins uses up time in any two looks."""
        wait_until(self._used_no_time, "the server is idle")

    def _used_no_time(self):
        before = self._cpu_ticks()
        time.sleep(0.1)
        return self._cpu_ticks() == before

    def _cpu_ticks(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def ended(self):
        """Waits for the end and returns the exit status."""
        return self.process.wait(STEP_SECONDS)

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        return self.ended()


def wait_until(condition, what):
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen in {STEP_SECONDS} s: {what}")
        time.sleep(0.01)
