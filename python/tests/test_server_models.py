"""Servers in a process of their own: under every model, on every engine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess

import pytest
from serving import (
    FORKING,
    LONG,
    MODELS,
    Program,
    ask,
    ask_where,
    connect,
    end,
    last_words,
    program,
    read_all,
    receive,
    refused,
)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FORKING)
def forking(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ECHO = "serve(Echo(), signals=True)"
THREADED = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n" + ECHO


def test_echo_until_sigterm(model: str, engine: str) -> None:
    with program(ECHO, model, engine) as (process, address):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(address)) for _ in range(6)]
            for number, client in enumerate(clients):
                assert ask(client, b"hello %d" % number) == b"hello %d" % number
            block = os.urandom(300_000)
            for client in clients:
                assert ask(client, block) == block
        assert end(process) == ("", "")


ACTIVATED = """
class Both(Echo):
    def on_datagram(self, datagram, data):
        datagram.reply(datagram.local.encode())

for number, passed in enumerate(%r, 3):
    os.dup2(passed, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="%d")
server = omnipoll.Server(Both(), "systemd", model=model, engine=engine, workers=2, signals=True)
print(*server.addresses, flush=True)
server.run()
"""


def test_what_systemd_passes_is_served_and_left_open(model: str, engine: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        name = f"omnipoll-{os.getpid()}-{model}-{engine}"
        local.bind(f"\0{name}")
        local.listen()
        # Out of the way of the numbers that the program gives them.
        has_datagrams = model not in ("thread", "fork")
        sockets = (tcp, local, udp) if has_datagrams else (tcp, local)
        passed = [fcntl.fcntl(listener, fcntl.F_DUPFD, 64) for listener in sockets]
        expected = [f"127.0.0.1:{tcp.getsockname()[1]}", f"unix:@{name}"]
        expected += ["udp:{}:{}".format(*udp.getsockname())] if has_datagrams else []
        with program(ACTIVATED % (passed, len(passed)), model, engine, passed) as (process, addresses):
            assert addresses.split() == expected
            if has_datagrams:
                assert ask_where(udp.getsockname()) == expected.pop()[len("udp:") :].encode()
            for address in expected:
                with connect(address) as client:
                    assert ask(client, b"hello") == b"hello"
            assert end(process) == ("", "")
            # A client that comes now is not refused: systemd starts the next one.
            connect(addresses.split()[0]).close()
        for number in passed:
            os.close(number)


STOPPING = """
class Handler(Echo):
    def on_stop(self, connection):
        connection.write(b"stopping")
serve(Handler(), signals=True, drain=None)
"""


def test_sigterm_drains(model: str, engine: str) -> None:
    with program(STOPPING, model, engine) as (process, address):
        with connect(address) as client:
            assert ask(client, b"before") == b"before"
            process.send_signal(signal.SIGTERM)
            assert receive(client, 8) == b"stopping"
            refused(address)
            assert ask(client, b"after") == b"after"
        said, complained = last_words(process)
        assert (process.returncode, said, complained) == (0, "", "")


def test_a_second_sigterm_ends_at_once(model: str, engine: str) -> None:
    with program(STOPPING, model, engine) as (process, address):
        with connect(address) as client:
            assert ask(client, b"x") == b"x"
            process.send_signal(signal.SIGTERM)
            assert receive(client, 8) == b"stopping"
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionResetError):
                assert read_all(client) == b""
        assert process.wait(LONG) == 0


def interrupt(process: Program, number: int = signal.SIGINT) -> None:
    """Again and again, for the first may come before the system call."""
    for _ in range(100):
        process.send_signal(number)
        try:
            process.wait(0.1)
            return
        except subprocess.TimeoutExpired:
            pass


def test_ctrl_c(model: str, engine: str) -> None:
    source = """
import signal
try:
    serve(Echo())
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted", flush=True)
"""
    with program(source, model, engine) as (process, address), connect(address) as client:
        assert ask(client, b"x") == b"x"
        interrupt(process)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(client) == b""
        said, complained = last_words(process)
        assert (said, complained) == ("interrupted\n", "")


def test_a_handler_of_signals_stops_the_server(model: str, engine: str) -> None:
    source = """
import signal
handler = Echo()
signal.signal(signal.SIGUSR1, lambda *_: handler.server.stop(0))
serve(handler)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print("stopped")
"""
    with program(source, model, engine) as (process, address):
        with connect(address) as client:
            assert ask(client, b"x") == b"x"
            interrupt(process, signal.SIGUSR1)
        said, complained = last_words(process)
        assert (process.returncode, said, complained) == (0, "stopped\n", "")


def test_an_exception_is_one_clients_end(model: str, engine: str) -> None:
    source = """
class Handler(Echo):
    def on_data(self, connection, data):
        connection.write(data)
        if data == b"stumble":
            raise ZeroDivisionError(data)
serve(Handler(), signals=True)
"""
    with program(source, model, engine) as (process, address):
        with connect(address) as other:
            assert ask(other, b"before") == b"before"
            with connect(address) as client, contextlib.suppress(ConnectionResetError):
                client.sendall(b"stumble")
                read_all(client)
            assert ask(other, b"after") == b"after"
        said, complained = end(process)
    assert said == ""
    assert complained.startswith("exception in on_data for 127.0.0.1:")
    assert complained.count("Traceback") == 1
    assert complained.endswith("ZeroDivisionError: b'stumble'\n")


def test_other_threads_write(model: str, engine: str) -> None:
    """Also in children, whose threads are begun after the fork."""
    source = """
import threading
class Handler(Echo):
    def on_data(self, connection, data):
        threads = [threading.Thread(target=connection.write, args=(data,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        connection.threads = threads
    def on_close(self, connection, error):
        for thread in connection.threads:
            thread.join()
serve(Handler(), signals=True)
"""
    with program(source, model, engine) as (process, address):
        with connect(address) as client:
            client.sendall(b"12345678")
            assert receive(client, 32) == b"12345678" * 4
        assert end(process) == ("", "")


# ---- Processes -----------------------------------------------------------------------------


def test_children_leave_their_parents_end_alone(forking: str, engine: str) -> None:
    """What they print comes once; atexit is the parent's; what surrounds a fork is done."""
    source = """
import atexit, threading
parent = os.getpid()
atexit.register(lambda: print("at exit", os.getpid() == parent))
hooks = []
os.register_at_fork(before=lambda: hooks.append("before"), after_in_child=lambda: hooks.append("in child"))
class Handler(Echo):
    def on_data(self, connection, data):
        print(hooks, os.getpid() != parent, threading.current_thread() is threading.main_thread())
        connection.write(data)
server = omnipoll.Server(Handler(), "127.0.0.1:0", model=model, engine=engine, workers=1, signals=True)
print(*server.addresses, flush=True)
print("printed once", end=" ")
server.run()
"""
    with program(source, forking, engine) as (process, address):
        with connect(address) as client:
            assert ask(client, b"x") == b"x"
        said, complained = end(process)
    assert complained == ""
    assert said.splitlines() == ["printed once ['before', 'in child'] True True", "at exit True"]


def test_broadcast_is_refused_in_children(forking: str, engine: str) -> None:
    source = """
class Handler(Echo):
    def on_data(self, connection, data):
        try:
            self.server.broadcast(data)
        except OSError as error:
            connection.write(b"%4d" % error.errno)
serve(Handler(), signals=True)
"""
    with program(source, forking, engine) as (process, address):
        with connect(address) as client:
            client.sendall(b"x")
            assert int(receive(client, 4)) == errno.ENOTSUP
        assert end(process) == ("", "")


PIDS = """
class Handler:
    def on_data(self, connection, data):
        connection.write(b"%10d" % os.getpid())
    def on_end(self, connection):
        stats = self.server.stats()
        connection.write(b"%10d" % stats.total.restarts)
        connection.close()
serve(Handler(), signals=True)
"""


def test_a_killed_child_is_one_processs_end(forking: str, engine: str) -> None:
    with program(PIDS, forking, engine) as (process, address), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(6)]
        for client in clients:
            client.sendall(b"which?")
        pids = [int(receive(client, 10)) for client in clients]
        os.kill(pids[0], signal.SIGKILL)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(clients[0]) == b""
        for client, pid in zip(clients, pids):
            if pid != pids[0]:
                client.sendall(b"which?")
                assert int(receive(client, 10)) == pid
        with connect(address) as new:
            new.sendall(b"which?")
            assert int(receive(new, 10)) != pids[0]
        stack.close()
        assert end(process) == ("", "")


def test_a_worker_is_replaced(engine: str) -> None:
    with program(PIDS, "prefork", engine) as (process, address):
        for restarts in range(1, 4):
            with connect(address) as client, contextlib.suppress(ConnectionResetError):
                client.sendall(b"which?")
                os.kill(int(receive(client, 10)), signal.SIGKILL)
                read_all(client)
            seen = 0
            while seen < restarts:  # The parent learns of the death in its own time.
                with connect(address) as client:
                    client.shutdown(1)
                    seen = int(receive(client, 10))
        assert end(process) == ("", "")


def test_sys_exit_ends_its_process_alone(forking: str, engine: str) -> None:
    source = """
class Handler(Echo):
    def on_data(self, connection, data):
        connection.write(data)
        if data == b"exit":
            sys.exit(3)
serve(Handler(), signals=True)
print("served")
"""
    with program(source, forking, engine) as (process, address):
        with connect(address) as client, contextlib.suppress(ConnectionResetError):
            client.sendall(b"exit")
            read_all(client)
        for _ in range(100):
            # A client of the process that ends, in its last moment, is reset too.
            with contextlib.suppress(ConnectionResetError), connect(address) as client:
                assert ask(client, b"still there") == b"still there"
                break
        else:
            raise AssertionError("nothing serves")
        assert end(process) == ("served\n", "")


def test_threads_that_a_fork_leaves_behind_are_warned_of(model: str, engine: str) -> None:
    with program(THREADED, model, engine) as (process, address):
        with connect(address) as client:
            assert ask(client, b"x") == b"x"
        _, complained = end(process)
    assert ("RuntimeWarning" in complained) == (model in FORKING)


FORKER = """
class Forker(Echo):
    def on_data(self, connection, data):
        child = os.fork()
        if child == 0:
            sys.exit(int(data))
        connection.write(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

import warnings
warnings.simplefilter("ignore")  # Of forks beside other threads, from Python 3.12 on.
serve(Forker(), signals=True)
"""


def test_a_child_of_a_handlers_leaves(model: str, engine: str) -> None:
    with program(FORKER, model, engine) as (process, address):
        for _ in range(2):
            with connect(address) as client:
                assert ask(client, b"7") == b"7"
        assert end(process) == ("", "")
