"""Builds the C examples and runs all examples, on every engine, with real clients.

    python3 c-examples/test_examples.py         (or through pytest)

Needs python3, cc, make and the built library: OMNIPOLL_LIBDIR names the directory that holds
libomnipoll_capi.{so,a}, by default target/release. Each C program is built twice: with the
sanitizers against the static library, and by the very line its comment gives against the
shared one. The FFI examples need luajit, ruby, and node with npm, the servers redis-cli,
redis-benchmark and wrk; what is missing is installed with apt-get by root, and a test that can't
have it is skipped, or fails when CI=true.
"""

# The names of the tests say what they show.
# ruff: noqa: D101, D102, D103, D105, D107

import atexit
import contextlib
import ctypes
import errno
import fcntl
import functools
import io
import itertools
import multiprocessing
import os
import random
import re
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
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

TEST_SECONDS = 90  # no test takes longer, whatever happens
STEP_SECONDS = 30  # nor any single step that can hang


# Building


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
def setUpModule():
    raise_descriptor_limit()
    atexit.register(shutil.rmtree, BUILD, ignore_errors=True)
    stage_library()
    build_sanitized()
    build_plain()


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# Running


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

        # Appended to, because a look moves the offset that the server has, too.
        self.errors = tempfile.TemporaryFile("a+")  # noqa: SIM115 (closed by __exit__)
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


# Clients


def connect(address, receive_buffer=None):
    """To a port, or to the path of a unix socket."""
    is_path = isinstance(address, str)
    client = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
    client.settimeout(STEP_SECONDS)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(address if is_path else ("127.0.0.1", address))
    return client


def receive(client, length):
    data = bytearray()
    while len(data) < length:
        chunk = client.recv(length - len(data))
        if not chunk:
            raise AssertionError(f"end of file after {len(data)} of {length} bytes")
        data += chunk
    return bytes(data)


def receive_line(client, end=b"\r\n"):
    line = b""
    while not line.endswith(end):
        line += receive(client, 1)
    return line[: -len(end)]


def receive_all(client):
    """What comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def round_trip(client, message):
    client.sendall(message)
    return receive(client, len(message))


def wait_until_arrived(client):
    """Until the server's system has all that was sent: on a busy machine loopback takes its time."""

    def is_acknowledged():
        return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder) == 0

    wait_until(is_acknowledged, "an acknowledgement of all that was sent")


def is_closed_by_server(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


class EchoClient:
    """Sends a stream in pieces, ends it, and collects what comes back until the end."""

    def __init__(self, port, data, pieces, read_size=1 << 16):
        self.socket = connect(port)
        self.socket.setblocking(False)
        self.data, self.pieces, self.read_size = data, pieces, read_size
        self.sent = 0
        self.received = bytearray()

    def interest(self):
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.sent < len(self.data) else 0)

    def step(self, ready):
        """Does what can be done now. True at the end of the stream."""
        if ready & selectors.EVENT_WRITE:
            piece = self.data[self.sent : self.sent + next(self.pieces)]
            self.sent += self.socket.send(piece)
            if self.sent == len(self.data):
                self.socket.shutdown(socket.SHUT_WR)
        if ready & selectors.EVENT_READ:
            chunk = self.socket.recv(self.read_size)
            self.received += chunk
            return chunk == b""
        return False


def drive(clients):
    """Runs all the clients at once until each has come to its end."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, client.interest(), client)
        while selector.get_map():
            ready = selector.select(STEP_SECONDS)
            if not ready:
                raise AssertionError(f"{len(selector.get_map())} clients receive nothing any more")
            for key, mask in ready:
                client = key.data
                if client.step(mask):
                    selector.unregister(client.socket)
                    client.socket.close()
                elif key.events != client.interest():
                    selector.modify(client.socket, client.interest(), client)


def echo_clients(port, count, sizes, seed):
    """Clients that each send one message of every size, in pieces of uneven length. Every tenth
    sends more than the system's buffers hold and reads it slowly: writes to it are partial."""
    source = random.Random(seed)

    def pieces():
        while True:
            yield source.choice((1, 100, 1448, 10000, 300000))

    def stream():
        return b"".join(source.randbytes(size) for size in source.sample(sizes, len(sizes)))

    def client(number):
        if number % 10 == 0:
            return EchoClient(port, stream() * 16, itertools.repeat(300000), read_size=1 << 13)
        return EchoClient(port, stream(), pieces())

    return [client(number) for number in range(count)]


# Tests


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
        missing = f"{program} is not here, and apt-get could not install it"
        if os.environ.get("CI") == "true":
            self.fail(missing)
        self.skipTest(missing)

    def connect(self, server, **options):
        return self.sockets.enter_context(connect(server.port, **options))


class EchoServer:
    """What is true of every echo server; `command` starts it."""

    def test_many_clients_at_once(self):
        with Server(self.command) as server:
            sizes = [1, 2, 77, 4096, 65536, 262144]
            clients = echo_clients(server.port, count=50, sizes=sizes, seed=1)
            drive(clients)
            for client in clients:
                self.assertEqual(client.received, client.data)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_client_that_does_not_read(self):
        limit = 64 << 20
        chunk = random.Random(2).randbytes(1 << 16)
        with Server(self.command) as server:
            slow = self.connect(server, receive_buffer=4096)
            slow.settimeout(0.3)
            sent = 0
            with contextlib.suppress(socket.timeout):
                while sent < limit:
                    sent += slow.send(chunk[sent % len(chunk) :])
            self.assertLess(sent, limit, "the server takes what it can't give back")
            server.wait_until_idle()
            other = self.connect(server)
            for size in (1, 1000, 100000):
                self.assertEqual(round_trip(other, chunk[:size]), chunk[:size])
            slow.settimeout(STEP_SECONDS)
            slow.shutdown(socket.SHUT_WR)
            expected = chunk * (sent // len(chunk)) + chunk[: sent % len(chunk)]
            self.assertEqual(receive(slow, sent), expected)
            self.assertEqual(slow.recv(1), b"")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_reset_connection(self):
        with Server(self.command) as server:
            stays = self.connect(server)
            for length in (0, 1, 1 << 20):
                client = self.connect(server)
                client.settimeout(0.3)
                with contextlib.suppress(socket.timeout):
                    client.sendall(bytes(length))
                # A close with this option resets the connection.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                self.assertEqual(round_trip(stays, b"still there"), b"still there")
            server.wait_until_idle()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_either_signal_ends_it_with_clients_connected(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            with Server(self.command) as server:
                clients = [self.connect(server) for _ in range(3)]
                for client in clients:
                    self.assertEqual(round_trip(client, b"hello"), b"hello")
                self.assertEqual(server.stop(signo), 0, server.stderr())
                for client in clients:
                    self.assertTrue(is_closed_by_server(client))


class CEchoServer(EchoServer):
    """What is true of those in C besides."""

    def test_out_of_descriptors(self):
        with Server(self.command, descriptors=20) as server:
            clients = [self.connect(server) for _ in range(40)]
            server.wait_until_said("Too many open files")
            server.wait_until_idle()
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_more_clients_than_a_set_holds(self):
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(1100)]
            echoed = 0
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"hello")
                    echoed += client.recv(5) == b"hello"
            if self.command[0].endswith("raw_select"):
                self.assertIn("does not fit a set of 1024", server.stderr())
                self.assertTrue(1000 < echoed < 1024, echoed)
            else:
                self.assertEqual(echoed, 1100)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_bad_command_line(self):
        for options in ("--engine none", "--engine", "--address nowhere", "--address 127.0.0.1:70000"):
            done = subprocess.run(
                self.command[:1] + options.split(),
                env=environment(),
                timeout=STEP_SECONDS,
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("usage:", done.stderr)


class ChatServer:
    def test_every_line_reaches_every_other_client_in_order(self):
        people, lines = 20, 50
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(people)]
            self.all_are_in(clients)
            source = random.Random(3)

            def line(person, number):
                return f"{person} {number} {'x' * source.choice((0, 10, 500))}\n".encode()

            said = [[line(person, number) for number in range(lines)] for person in range(people)]
            for number in range(lines):
                for person, client in enumerate(clients):
                    client.sendall(said[person][number])
            for person, client in enumerate(clients):
                expected = {other: list(said[other]) for other in range(people) if other != person}
                reader = client.makefile("rb")
                for _ in range(lines * (people - 1)):
                    line = reader.readline()
                    speaker = int(line.split()[0])
                    self.assertEqual(line, expected[speaker].pop(0))
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_lines_come_whole(self):
        with Server(self.command) as server:
            first, second, listener = (self.connect(server) for _ in range(3))
            self.all_are_in([first, second, listener])
            first.sendall(b"half of ")
            second.sendall(b"a whole line\n")
            self.assertEqual(receive(listener, 13), b"a whole line\n")
            first.sendall(b"one\nand the beginning of ")
            self.assertEqual(receive(listener, 12), b"half of one\n")
            first.sendall(b"another\n")
            self.assertEqual(receive(listener, 29), b"and the beginning of another\n")
            long_line = random.Random(4).randbytes(10000).replace(b"\n", b"-") + b"\n"
            first.sendall(long_line)
            self.assertEqual(receive(listener, len(long_line)), long_line)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_slow_client_is_dropped_and_the_others_lose_nothing(self):
        chunk = (b"x" * 999 + b"\n") * 64
        limit = 64 << 20
        with Server(self.command) as server:
            slow = self.connect(server, receive_buffer=4096)
            talker, *others = (self.connect(server) for _ in range(6))
            self.all_are_in([slow, talker, *others])
            sent = 0
            while "client 1 dropped: it has left" not in server.stderr():
                self.assertLess(sent, limit, "a client that does not read is never dropped")
                talker.sendall(chunk)
                for other in others:
                    self.assertEqual(receive(other, len(chunk)), chunk)
                sent += len(chunk)
            with contextlib.suppress(ConnectionResetError):
                while slow.recv(1 << 16):
                    pass
            others[0].sendall(b"goodbye\n")
            for client in (talker, *others[1:]):
                self.assertEqual(receive(client, 8), b"goodbye\n")
            self.assertEqual(server.stderr().count("dropped"), 1)
            server.wait_until_idle()
            self.assertEqual(server.stop(), 0)

    def test_out_of_descriptors(self):
        with Server(self.command, descriptors=20) as server:
            clients = [self.connect(server) for _ in range(40)]
            server.wait_until_said("Too many open files")
            server.wait_until_idle()
            for first, second in zip(clients[::2], clients[1::2]):
                wait_until(functools.partial(self.receives, first, second), "the next two are accepted")
                first.close()
                second.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def receives(self, sender, receiver):
        sender.sendall(b"hello\n")
        receiver.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            return receiver.recv(6) != b""
        return False

    def all_are_in(self, clients):
        """The server accepts in order: when the last one's line arrives, all are accepted."""
        clients[-1].sendall(b"in\n")
        for client in clients[:-1]:
            self.assertEqual(receive(client, 3), b"in\n")


class SmallPrograms:
    """Those that print a table and end."""

    def rows(self, program, columns):
        """The rows below the table's head, split at runs of two or more blanks."""
        table = [re.split(r" {2,}", line.strip()) for line in self.output(program)]
        head = next(i for i, row in enumerate(table) if row[0] == "engine")
        self.assertEqual(len(table[head]), columns)
        return table[head + 1 :]

    def output(self, program):
        return run([str(self.directory / program)], seconds=STEP_SECONDS).splitlines()

    def test_triggers(self):
        expected = [
            [engine, *row]
            for engine in ENGINES
            for row in (
                ("LEVEL", "READ", "READ", "READ"),
                ("EDGE", "READ", "nothing", "READ"),
                ("ONESHOT", "READ", "nothing", "READ"),
            )
        ]
        self.assertEqual(self.rows("triggers", 5), expected)

    def test_sleep(self):
        rows = self.rows("sleep", 3)
        self.assertEqual([row[0] for row in rows], [engine for engine in ENGINES for _ in range(9)])
        for row in rows:
            self.assertGreaterEqual(int(row[2]), 0, row)

    def test_bigfd(self):
        expected = [
            [engine, str(fd), f"READ on {fd}"] for engine in ENGINES for fd in (1023, 1024, 1500, 5000)
        ]
        self.assertEqual(self.rows("bigfd", 3), expected)

    def test_closed(self):
        expected = [
            ["select", "INVALID x 1", "READ x 1", "not registered"],
            ["poll", "INVALID x 1", "READ x 1", "not registered"],
            ["epoll", "INVALID x 0", "READ x 1", "done"],
            *([["io_uring", "INVALID x 0", "READ x 1", "done"]] if IO_URING else []),
        ]
        self.assertEqual(self.rows("closed", 4), expected)

    def test_timers(self):
        rows = self.rows("timers", 5)
        names = ["10 ms", "20 ms", "100 ms", "5 ms, moved to 120 ms", "15 ms, cancelled"]
        names += ["each 2 ms, five times", "each 2 ms, after 20 ms"]
        self.assertEqual([row[:2] for row in rows], [[engine, name] for engine in ENGINES for name in names])
        for _, name, *numbers in rows:
            events, periods, late_ns = map(int, numbers)
            self.assertGreaterEqual(late_ns, 0, name)
            if name == "each 2 ms, five times":
                self.assertTrue(1 <= events <= 5 <= periods, numbers)
            elif name == "each 2 ms, after 20 ms":
                self.assertTrue(events == 1 and periods >= 10, numbers)
            else:
                expected = 0 if name.endswith("cancelled") else 1
                self.assertEqual((events, periods), (expected, expected), name)

    def test_children(self):
        flaky = [
            ["1", "signal 9", "again after 5 ms"],
            ["2", "exit status 2", "again after 10 ms"],
            ["3", "exit status 3", "again after 20 ms"],
            ["4", "exit status 0", "done"],
        ]
        pauses = [f"again after {pause} ms" for pause in (5, 10, 20, 40)] + ["given up"]
        broken = [[str(run), "exit status 1", then] for run, then in enumerate(pauses, 1)]
        rows = self.rows("children", 5)
        for engine in ENGINES:
            for worker, expected in (("flaky", flaky), ("broken", broken)):
                self.assertEqual([row[2:] for row in rows if row[:2] == [engine, worker]], expected)
        self.assertEqual(len(rows), len(ENGINES) * len(flaky + broken))

    def test_threads(self):
        self.assertEqual(self.rows("threads", 4), [[engine, "200", "17984", "yes"] for engine in ENGINES])

    def test_strict(self):
        expected = {
            "blocking EDGE": "set O_NONBLOCK",
            "undrained EDGE": "read until EAGAIN, then rearm",
            "forgotten ONESHOT": "modify it when it is served",
            "closed": "remove it before it is closed",
            "number reused": "another file than the one registered",
            "busy writer": "ask for WRITE only while",
            "blocked loop": "give long work to another thread",
            "forked child": "call after_fork first",
            "leaked": "was still registered",
            "none": "nothing",
        }
        rows = self.rows("strict", 3)
        mistakes = [[engine, mistake] for engine in ENGINES for mistake in expected]
        self.assertEqual([row[:2] for row in rows], mistakes)
        for _, mistake, words in rows:
            self.assertIn(expected[mistake], words)
            if mistake not in ("forked child", "none"):
                self.assertRegex(words, r"^descriptor \d+ \(token 42\) ")


class SignalServer:
    def test_hangup_signal_reloads_and_nobody_is_lost(self):
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(5)]
            for reloads in range(3):
                for client in clients:
                    client.sendall(b"in pieces")
                for client in clients:
                    client.sendall(b", please\n")
                for client in clients:
                    self.assertEqual(receive(client, 20), b"%d in pieces, please\n" % reloads)
                server.process.send_signal(signal.SIGHUP)
                server.wait_until_said(f"settings {reloads + 1}\n")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_was_asked_is_answered_before_the_end(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            with Server(self.command) as server:
                _, half, asks = clients = [self.connect(server) for _ in range(3)]
                for client in clients:
                    client.sendall(b"hello\n")
                for client in clients:
                    self.assertEqual(receive(client, 8), b"0 hello\n")
                half.sendall(b"half a")
                asks.sendall(b"one\ntwo\n")
                wait_until_arrived(asks)
                server.process.send_signal(signo)
                self.assertEqual(receive(asks, 12), b"0 one\n0 two\n")
                for client in clients:
                    self.assertTrue(is_closed_by_server(client))
                self.assertEqual(server.ended(), 0, server.stderr())
                with socket.socket() as late:
                    self.assertEqual(late.connect_ex(("127.0.0.1", server.port)), errno.ECONNREFUSED)

    def test_it_ends_though_the_work_does_not(self):
        for again in (False, True):
            with Server([*self.command, "--work", "3600000"]) as server:
                client, idle = self.connect(server), self.connect(server)
                client.sendall(b"how long?\n")
                wait_until_arrived(client)
                server.process.send_signal(signal.SIGTERM)
                self.assertTrue(is_closed_by_server(idle))
                if again:
                    server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.ended(), 1)
                self.assertTrue(is_closed_by_server(client))
                self.assertIn("ended with 1 clients unanswered", server.stderr())


class EchoByModel(EchoServer):
    """serve.c: an echo server under one of the models."""

    def test_more_clients_than_a_set_holds(self):
        most = 500 if self.model in ("thread", "fork") else 1100  # 512 are served at once there
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(most)]
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
            for client in clients:
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_bad_command_line(self):
        for option, words in (
            ("--model=none", "no model has that name"),
            ("--engine=none", "there is no engine of that number"),
            ("--address=nowhere", "omni_server_listen"),
            ("--none", "unrecognized option"),
        ):
            done = subprocess.run(
                [self.command[0], option], timeout=STEP_SECONDS, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(words, done.stderr)


class KeyValueServer:
    def test_redis_cli_is_answered(self):
        conversation = {
            "PING": "PONG",
            "ECHO hello": "hello",
            "GET key": "",
            "SET key 41": "OK",
            "INCR key": "42",
            "get key": "42",
            "EXISTS key other key": "2",
            "DEL key other": "1",
            "EXISTS key": "0",
            'SET "a key" "two words"': "OK",
            'GET "a key"': "two words",
            'INCR "a key"': "ERR value is not an integer or out of range",
            "NONE": "ERR unknown command",
            "GET": "ERR wrong number of arguments for 'GET'",
        }
        for options in ((), ("-3",)):
            with Server(self.command) as server:
                said = self.redis_cli(server, *conversation, options=options)
                # It puts a blank line behind an error.
                self.assertEqual(" ".join(filter(None, said)), " ".join(filter(None, conversation.values())))
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_hello_chooses_the_protocol(self):
        none, setting = resp(b"GET", b"none such"), resp(b"CONFIG", b"GET", b"save")
        refused = b"-NOPROTO unsupported protocol version\r\n"
        with Server(self.command) as server:
            client = self.connect(server)
            for request, protocol in ((b"HELLO", 2), (b"hello 3", 3), (b"HELLO", 3), (b"HELLO 2", 2)):
                client.sendall(request + b"\r\nHELLO 4\r\nHELLO x\r\n" + none + setting)
                marks = (b"%5", b"_", b"%1") if protocol == 3 else (b"*10", b"$-1", b"*2")
                self.assertEqual(receive_line(client), marks[0])
                answer = receive(client, len(resp_words(b"server", b"kv", b"proto")))
                self.assertEqual(answer, resp_words(b"server", b"kv", b"proto"))
                self.assertEqual(receive_line(client), b":%d" % protocol)
                self.assertEqual(receive(client, 8), resp_words(b"id"))
                self.assertRegex(receive_line(client), rb"^:[1-9]\d*$")
                rest = resp_words(b"mode", b"standalone", b"role", b"master") + 2 * refused
                rest += marks[1] + b"\r\n" + marks[2] + b"\r\n" + resp_words(b"save", b"")
                self.assertEqual(receive(client, len(rest)), rest)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_client_that_asks_for_much_and_reads_late(self):
        """100 MB of answers are asked for before one is read; they are made as they are read."""
        value = random.Random(8).randbytes(1_000_000)
        answer = resp_words(value)
        for ends in (False, True):
            with Server(self.command) as server:
                client = self.connect(server)
                client.sendall(resp(b"SET", b"big", value))
                self.assertEqual(receive_line(client), b"+OK")
                client.sendall(b"GET big\r\n" * 100 + b"PING\r\n" + b"*1\r\n$4\r\nPI")
                if ends:
                    client.shutdown(socket.SHUT_WR)
                else:
                    server.wait_until_idle()
                for _ in range(100):
                    self.assertEqual(receive(client, len(answer)), answer)
                self.assertEqual(receive_line(client), b"+PONG")
                if not ends:
                    client.sendall(b"NG\r\n")
                    self.assertEqual(receive_line(client), b"+PONG")
                    client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(client), b"")
                client.close()
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_redis_benchmark_is_answered_and_each_request_counts(self):
        self.needs("redis-benchmark", "redis-tools")
        count = 5000
        with Server(self.command) as server:
            options = f"-p {server.port} -n {count} -c 20 -P 8 -q -t ping_inline,ping_mbulk,set,get,incr"
            said = run(["redis-benchmark", *options.split()], seconds=STEP_SECONDS)
            rates = re.findall(r"(\w+): ([\d.]+) requests per second", said)
            names = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"]
            self.assertEqual([name for name, _ in rates], names, said)
            print(*self.command[1:], *(f"{name} {float(rate):.0f}/s" for name, rate in rates))
            if self.model in ONE_PROCESS:
                counted = self.redis_cli(server, "GET counter:__rand_int__")
                self.assertGreaterEqual(int(counted[0]), count)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_requests_come_in_any_pieces(self):
        source = random.Random(6)
        requests, answers = self.conversation(source)
        with Server(self.command) as server:
            for longest in (50, 1000, len(requests)):
                client = self.connect(server)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                at = 0
                while at < len(requests):
                    piece = requests[at : at + source.randint(1, longest)]
                    client.sendall(piece)
                    at += len(piece)
                self.assertEqual(receive(client, len(answers)), answers)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def conversation(self, source):
        """Requests, one after the other, and what is answered to them."""
        value, large = source.randbytes(300), source.randbytes(20000)
        pairs = (
            (resp(b"DEL", b"n", b"v", b""), None),
            (b"PING\r\n", b"+PONG\r\n"),
            (b"  echo   hello  \n", b"$5\r\nhello\r\n"),
            (b"\r\n", b""),
            (b"*0\r\n", b""),
            (resp(b"SET", b"v", value), b"+OK\r\n"),
            (resp(b"get", b"v"), b"$%d\r\n%b\r\n" % (len(value), value)),
            (resp(b"GET", b"none such"), b"$-1\r\n"),
            *((resp(b"INCR", b"n"), b":%d\r\n" % n) for n in range(1, 100)),
            (resp(b"SET", b"v", large), b"+OK\r\n"),
            (resp(b"GET", b"v"), b"$%d\r\n%b\r\n" % (len(large), large)),
            (resp(b"SET", b"", b""), b"+OK\r\n"),
            (resp(b"GET", b""), b"$0\r\n\r\n"),
            (resp(b"DEL", b"n", b"v", b""), b":3\r\n"),
        )
        return tuple(map(b"".join, zip(*pairs[1:])))

    def test_what_is_no_request_is_told_and_ends_the_connection(self):
        wrong = [b"*x\r\n", b"*1\r\n+4\r\n", b"*-1\r\n", b"*1025\r\n", b"*1\r\n$4\r\nPINGxx"]
        wrong += [b"*" + b"1" * 40, b"*2\r\n$1048577\r\n", b"*1\n", b"x" * 65536]
        with Server(self.command) as server:
            for request in wrong:
                client = self.connect(server)
                client.sendall(b"PING\r\n" + request)
                self.assertEqual(receive_all(client), b"+PONG\r\n-ERR Protocol error\r\n", request)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_clients_share_depends_on_the_model(self):
        count = 20
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(count)]
            got = []
            for client in clients:
                client.sendall(resp(b"INCR", b"n"))
                got.append(int(receive_line(client)[1:]))
            if self.model in ONE_PROCESS:
                self.assertEqual(got, list(range(1, count + 1)))
            elif self.model == "fork":
                self.assertEqual(got, [1] * count)
            else:
                # Each process counts for itself, and without gaps.
                self.assertLessEqual(got.count(1), len(os.sched_getaffinity(0)))
                self.assertTrue(all(got.count(n) >= got.count(n + 1) for n in range(1, count)), got)
            for client in clients:
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_stop_answers_who_has_begun_to_ask(self):
        with Server(self.command) as server:
            idle, asks = self.connect(server), self.connect(server)
            for client in (idle, asks):
                # After the answer, what came with its request has been read, too.
                client.sendall(b"PING\r\n" + (b"*1\r\n$4\r\nPI" if client is asks else b""))
                self.assertEqual(receive_line(client), b"+PONG")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(receive_all(idle), b"")
            idle.close()
            asks.sendall(b"NG\r\n")
            self.assertEqual(receive_all(asks), b"+PONG\r\n")
            asks.close()
            self.assertEqual(server.ended(), 0, server.stderr())

    def redis_cli(self, server, *commands, options=()):
        """What redis-cli prints for commands, given on one connection."""
        self.needs("redis-cli", "redis-tools")
        done = subprocess.run(
            ["redis-cli", "-p", str(server.port), *options],
            input="\n".join(commands) + "\n",
            timeout=STEP_SECONDS,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()


class HttpServer:
    OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n"
    BODY = b"Hello, world!\n"
    GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"

    def test_wrk_is_answered(self):
        self.needs("wrk", "wrk")
        with Server(self.command) as server:
            command = ["wrk", "-t1", "-c20", "-d1", f"http://127.0.0.1:{server.port}/"]
            said = run(command, seconds=STEP_SECONDS)
            self.assertNotIn("Socket errors", said)
            self.assertNotIn("Non-2xx", said)
            rate = float(re.search(r"Requests/sec: +([\d.]+)", said).group(1))
            self.assertGreater(rate, 0)
            print(*self.command[1:], f"{rate:.0f} requests/s")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_requests_come_in_any_pieces(self):
        source = random.Random(7)
        long_get = self.GET[:-2] + b"X-Long: " + b"x" * 8000 + b"\r\n\r\n"
        head = self.GET.replace(b"GET", b"HEAD")
        requests = [source.choice((self.GET, self.GET, long_get, head)) for _ in range(300)]
        text = b"".join(requests)
        answers = b"".join(self.OK if request is head else self.OK + self.BODY for request in requests)
        with Server(self.command) as server:
            for longest in (2000, 9000, len(text)):
                client = self.connect(server)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                at = 0
                while at < len(text):
                    piece = text[at : at + source.randint(1, longest)]
                    client.sendall(piece)
                    at += len(piece)
                self.assertEqual(receive(client, len(answers)), answers)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_the_connection_ends_when_either_side_says_so(self):
        closing = self.OK[:-2] + b"Connection: close\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            for last in (
                b"GET / HTTP/1.0\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: here\r\nconnection:  Close \r\n\r\n",
                b"GET /\xff HTTP/1.1\nConnection: close\n\n",
                b"GET / HTTP/1.1\r\nConnection: x,\tclose,keep-alive\r\n\r\n",
                b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            ):
                client = self.connect(server)
                client.sendall(self.GET + last + self.GET)
                self.assertEqual(receive_all(client), self.OK + self.BODY + closing, last)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_request_in_two_parts_whose_first_part_ends_the_connection(self):
        closing = self.OK[:-2] + b"Connection: close\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            for part in (b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\nHo"):
                client = self.connect(server)
                # The answer shows that the part, which came with its request, has been read.
                client.sendall(self.GET + part)
                self.assertEqual(receive(client, len(self.OK + self.BODY)), self.OK + self.BODY)
                client.sendall(b"st: here\r\n\r\n")
                self.assertEqual(receive_all(client), closing)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_http_1_0_keeps_the_connection_when_it_asks_for_that(self):
        ask = b"GET / HTTP/1.0\r\nConnection: TE, Keep-Alive\r\n\r\n"
        kept = self.OK[:-2] + b"Connection: keep-alive\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            client = self.connect(server)
            for _ in range(2):
                client.sendall(ask)
                self.assertEqual(receive(client, len(kept)), kept)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_empty_lines_before_a_request_are_ignored(self):
        with Server(self.command) as server:
            client = self.connect(server)
            answer = self.OK + self.BODY
            pieces = [lines + self.GET for lines in (b"\r\n", b"\n\r\n\n", b"\r\n" * 10000)]
            pieces += [self.GET + b"\r", b"\n" + self.GET]  # one that comes in two parts
            for piece in pieces:
                client.sendall(piece)
                self.assertEqual(receive(client, len(answer)), answer)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_is_no_request_is_refused(self):
        wrong = {
            b"400 Bad Request": (
                b"garbage\r\n",
                b"\r\r\n",
                b"GET / HTTP/2.0\r\n",
                b"GET  HTTP/1.1\r\n",
                b"GET / HTTP/1.1\r\nno colon\r\n",
                b"GET / HTTP/1.1\r\n: no name\r\n",
                b"GET / HTTP/1.1\r\nContent-Length: 5\r\n",
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
                bytes(range(256)),
            ),
            b"405 Method Not Allowed": (b"POST / HTTP/1.1\r\n", b"G / HTTP/1.1\r\n"),
            b"431 Request Header Fields Too Large": (
                b"x" * 8192,
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
            ),
        }
        with Server(self.command) as server:
            for status, requests in wrong.items():
                for request in requests:
                    client = self.connect(server)
                    client.sendall(self.GET + request)
                    answer = receive_all(client)
                    expected = self.OK + self.BODY + b"HTTP/1.1 " + status + b"\r\n"
                    self.assertEqual(answer[: len(expected)], expected, request)
                    self.assertTrue(answer.endswith(b"Connection: close\r\n\r\n"), answer)
                    client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_stop_answers_who_has_begun_to_ask(self):
        with Server(self.command) as server:
            idle, asks = self.connect(server), self.connect(server)
            for client in (idle, asks):
                client.sendall(self.GET)
                self.assertEqual(receive(client, len(self.OK + self.BODY)), self.OK + self.BODY)
            # After the answer, what came with its request has been read, too.
            asks.sendall(self.GET + self.GET[:5])
            self.assertEqual(receive(asks, len(self.OK + self.BODY)), self.OK + self.BODY)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(receive_all(idle), b"")
            idle.close()
            asks.sendall(self.GET[5:])
            # Its loop may get the stop after that of the idle one, and close it then.
            closing = self.OK[:-2] + b"Connection: close\r\n\r\n"
            self.assertIn(receive_all(asks), (closing + self.BODY, self.OK + self.BODY))
            asks.close()
            self.assertEqual(server.ended(), 0, server.stderr())


class Broadcast:
    def test_every_line_reaches_everybody_or_the_model_is_refused(self):
        if self.model not in ONE_PROCESS:
            done = subprocess.run(self.command, timeout=STEP_SECONDS, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("processes that share no memory", done.stderr)
            self.assertIn("(ENOTSUP)", done.stderr)
            return
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(10)]
            for client in clients:  # each has joined when it receives its own line
                client.sendall(b"in\n")
                while receive_line(client, b"\n") != b"in":
                    pass
            for number, client in enumerate(clients):
                client.sendall(b"%d: hel" % number)
                client.sendall(b"lo\n")
            expected = {b"%d: hello" % number for number in range(len(clients))}
            for client in clients:
                lines = (receive_line(client, b"\n") for _ in iter(int, 1))
                received = set(itertools.islice((line for line in lines if line != b"in"), len(clients)))
                self.assertEqual(received, expected)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())


def resp(*words):
    return b"*%d\r\n" % len(words) + resp_words(*words)


def resp_words(*words):
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Restart:
    def test_no_client_is_refused_while_servers_replace_each_other(self):
        env = {"OMNIPOLL_ENGINE": self.engine}
        with Server(self.command, env=env) as server, ThreadPoolExecutor() as pool:
            stays, enough = self.connect(server), threading.Event()
            first = self.answer(stays)
            clients = [pool.submit(self.keep_coming, server, enough) for _ in range(4)]
            served_by = [first]
            try:
                for _ in range(3):
                    os.kill(served_by[-1], signal.SIGHUP)
                    served_by.append(self.next_one(server.port, served_by))
                # The first serves its clients without a time limit.
                self.assertEqual(self.answer(stays), first)
            finally:
                enough.set()
            answers = [client.result(STEP_SECONDS) for client in clients]  # raises what a client met
            self.assertTrue(all(answers), answers)
            print(f"{self.engine}: {sum(answers)} clients, none refused")
            stays.close()
            self.assertEqual(server.ended(), 0, server.stderr())
            self.end(server, served_by[-1])

    def test_a_program_that_was_replaced_is_what_starts(self):
        with self.serving() as server:
            first = self.newcomer(server.port)
            shutil.copy(self.command[0], self.program.with_suffix(".new"))
            self.program.with_suffix(".new").rename(self.program)
            os.kill(first, signal.SIGHUP)
            second = self.next_one(server.port, [first])
            self.assertTrue(self.program.samefile(f"/proc/{second}/exe"))
            self.assertEqual(server.ended(), 0, server.stderr())
            self.end(server, second)

    def test_a_program_that_can_not_be_started_replaces_nobody(self):
        with self.serving() as server, self.connect(server) as client:
            first = self.answer(client)
            self.program.unlink()
            os.kill(first, signal.SIGHUP)
            server.wait_until_said(f"restart: {self.program}: No such file or directory\n")
            self.goes_on(server, client)

    def test_a_program_that_ends_before_it_serves_replaces_nobody(self):
        with self.serving() as server, self.connect(server) as client:
            self.replace_program("echo its end >&2")
            for times in (1, 2):
                os.kill(self.answer(client), signal.SIGHUP)
                ended = "its end\nrestart: the new process has ended before it served\n"
                server.wait_until_said(ended * times)
                self.goes_on(server, client)

    def test_while_one_starts_no_other_does_and_a_stop_is_for_both(self):
        with self.serving() as server, self.connect(server) as client:
            gate = self.program.with_name("gate")
            os.mkfifo(gate)
            opened = os.open(gate, os.O_RDWR)  # closed in any case, which lets it pass
            self.addCleanup(os.close, opened)
            self.replace_program(f"echo starting >&2; read line <{gate}; exec {self.command[0]}")
            os.kill(self.answer(client), signal.SIGHUP)
            server.wait_until_said("starting\n")
            os.kill(self.answer(client), signal.SIGHUP)
            server.wait_until_said("restart: another process takes over already\n")
            self.goes_on(server, client)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())
            self.assertFalse(self.is_refused(server.port), "no process has the socket open")
            os.write(opened, b"go\n")
            wait_until(lambda: self.is_refused(server.port), "the one that started ends")
            self.assertEqual(server.stderr().count("starting"), 1)

    def test_every_listening_socket_is_handed_on(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "socket")
            with self.serving("127.0.0.1:0", f"unix:{path}") as server:
                served_by = [self.newcomer(server.port)]
                for _ in range(2):
                    os.kill(served_by[-1], signal.SIGHUP)
                    served_by.append(self.next_one(server.port, served_by))
                    self.assertEqual(server.ended(), 0, server.stderr())
                    self.assertEqual(self.next_one(path, served_by[:-1]), served_by[-1])
                self.end(server, served_by[-1])

    def serving(self, *addresses):
        """A server whose program is a file of this test's."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.program = Path(shutil.copy(self.command[0], directory.name))
        return Server([str(self.program), *addresses], env={"OMNIPOLL_ENGINE": self.engine})

    def replace_program(self, script):
        self.program.unlink()
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def goes_on(self, server, client):
        """The first process serves, old clients and new ones."""
        self.assertEqual(self.answer(client), server.process.pid)
        self.assertEqual(self.newcomer(server.port), server.process.pid)

    def end(self, server, process):
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: self.is_refused(server.port), "the last one ends")

    def keep_coming(self, server, enough):
        """Comes and goes, and returns how often."""
        count = 0
        while not enough.is_set():
            self.newcomer(server.port)
            count += 1
        return count

    def next_one(self, address, before):
        """Comes until served by a process that was not there before."""
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            process = self.newcomer(address)
            if process not in before:
                return process
        raise AssertionError("no other process takes over")

    def newcomer(self, address):
        with contextlib.closing(connect(address)) as client:
            return self.answer(client)

    def answer(self, client):
        """The process that serves a client."""
        client.sendall(b"who?")
        return int(receive_line(client, b"\n"))

    def is_refused(self, port):
        with socket.socket() as late:
            return late.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


class Readme(Example):
    def test_it_has_each_program_and_its_build_line(self):
        text = (HERE / "README.md").read_text()
        for program in PROGRAMS:
            self.assertIn(f"`{program}.c`", text)
            self.assertIn(build_line(program), text)
        for script in (HERE / "ffi").glob("echo.*"):
            self.assertIn(f"`ffi/{script.name}`", text)


class ForeignEchoServer(EchoServer):
    def test_ends_after_so_many_clients(self):
        with Server([*self.command, "--clients", "10"]) as server:
            clients = echo_clients(server.port, count=10, sizes=[1, 300000], seed=5)
            drive(clients)
            for client in clients:
                self.assertEqual(client.received, client.data)
            self.assertEqual(server.ended(), 0, server.stderr())

    def setUp(self):
        super().setUp()
        missing = missing_for(self.program)
        if missing and os.environ.get("CI") == "true":
            self.fail(missing)
        if missing:
            self.skipTest(missing)
        os.environ["OMNIPOLL_LIBRARY"] = str(LIB / "libomnipoll.so.0")
        self.addCleanup(os.environ.pop, "OMNIPOLL_LIBRARY")


def missing_for(program):
    """Installs what a foreign program needs, and says what could not be had."""
    if shutil.which(program) is None or (program == "node" and shutil.which("npm") is None):
        packages = {"node": ["nodejs", "npm"]}.get(program, [program])
        if not install(["apt-get", "install", "-y", *packages]):
            return f"{program} is not here, and apt-get could not install it"
    koffi = HERE / "ffi" / "node_modules" / "koffi"
    if program == "node" and not koffi.is_dir() and not install(["npm", "install", "--no-package-lock"]):
        return "koffi is not here, and npm could not install it"
    return None


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


def define(name, behaviour, **attributes):
    """A test case of its own for each program, engine and build."""
    globals()[name] = type(name, (behaviour, Example), {"__module__": __name__, **attributes})


for build in BUILDS:
    define(f"Small_{build}", SmallPrograms, directory=BUILD / build)
    for program, engine in ECHO_SERVERS:
        command = [str(BUILD / build / program), "--engine", engine]
        define(f"Echo_{program}_{engine}_{build}", CEchoServer, command=command)
    for engine in ENGINES:
        define(f"Restart_{engine}_{build}", Restart, command=[str(BUILD / build / "restart")], engine=engine)
        command = [str(BUILD / build / "chat"), "--engine", engine]
        define(f"Chat_{engine}_{build}", ChatServer, command=command)
        command = [str(BUILD / build / "signals"), "--engine", engine]
        define(f"Signals_{engine}_{build}", SignalServer, command=command)
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
for program, script in (("luajit", "echo.lua"), ("ruby", "echo.rb"), ("node", "echo.mjs")):
    for engine in ENGINES:
        command = [program, str(HERE / "ffi" / script), "--engine", engine]
        define(f"Foreign_{program}_{engine}", ForeignEchoServer, program=program, command=command)


def run_class(name):
    """Runs the tests of a class; returns what was printed, and how many passed, failed, were skipped."""
    output = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(globals()[name])
    result = unittest.TextTestRunner(output, verbosity=2).run(suite)
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    return output.getvalue(), result.testsRun - failed - skipped, failed, skipped


def run_all():
    """Runs all classes, a few at a time: they wait more than they compute."""
    setUpModule()
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
