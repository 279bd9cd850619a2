"""Servers in this process: under reactor, cores and thread, on every engine."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import hashlib
import logging
import os
import socket
import struct
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ENGINES
from serving import (
    FORKING,
    LONG,
    SHARING,
    Echo,
    Recorder,
    ask,
    ask_where,
    connect,
    read_all,
    receive,
    refused,
)

import omnipoll
from omnipoll import Connection, Datagram, Server


@pytest.fixture(params=SHARING)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Serve:
    """Makes servers on a model and an engine, which serve until the test ends."""

    def __init__(self, model: str, engine: str, stack: contextlib.ExitStack) -> None:
        self.model, self.engine, self.stack = model, engine, stack

    def __call__(self, handler: Any, address: Any = "127.0.0.1:0", **options: Any) -> Server:
        options = {"model": self.model, "engine": self.engine, "drain": LONG, **options}
        if self.model == "cores":
            options.setdefault("workers", 2)
        return self.stack.enter_context(Server(handler, address, **options))

    def end(self) -> None:
        self.stack.close()


@pytest.fixture
def serve(model: str, engine: str) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield Serve(model, engine, stack)


# ---- Bytes ---------------------------------------------------------------------------------


def test_echo(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler)
    assert (server.model, server.engine) == (serve.model, serve.engine)
    clients = [connect(server) for _ in range(5)]
    for number, client in enumerate(clients):
        assert ask(client, b"hello %d" % number) == b"hello %d" % number
        client.close()
    calls = [handler.next() for _ in range(10)]
    opened = [connection for what, connection, *_ in calls if what == "open"]
    closed = [connection for what, connection, *_ in calls if what == "close"]
    assert len(set(opened)) == 5
    assert set(opened) == set(closed)
    assert all(error is None for what, _, *error in calls if what == "close" for error in error)
    serve.end()
    total = server.stats().total
    assert (total.accepted, total.active, total.bytes_in, total.bytes_out) == (5, 0, 35, 35)
    assert handler.calls.empty()


def test_a_slow_reader_grows_no_queue(serve: Serve) -> None:
    """No more than the high mark and what had been received by then: one read, or a ring's buffers."""
    high, read = 32 * 1024, 2 * 1024 * 1024 if serve.engine == "io_uring" else 64 * 1024
    largest = 0
    full, drained = threading.Event(), threading.Event()

    class Measured:
        def on_data(self, connection: Connection, data: bytes) -> None:
            nonlocal largest
            largest = max(largest, connection.write(data))
            if largest > high:
                full.set()
            assert connection.queued <= high + read

        def on_drain(self, connection: Connection) -> None:
            assert connection.queued <= high // 2
            drained.set()

    server = serve(Measured(), high_water=high, low_water=high // 2)
    block = os.urandom(1024 * 1024)
    with connect(server) as client:

        def send() -> None:
            for _ in range(32):
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert full.wait(LONG)
        received = hashlib.sha256()
        while data := client.recv(65536):
            received.update(data)
        sender.join(LONG)
    assert received.digest() == hashlib.sha256(block * 32).digest()
    assert high < largest <= high + read
    assert drained.is_set()


@pytest.mark.parametrize(
    "data", [b"bytes", bytearray(b"more bytes"), memoryview(b"some")[::2], array.array("i", [1, 2])]
)
def test_what_has_a_buffer_is_written(serve: Serve, data: Any) -> None:
    class Writer:
        def on_open(self, connection: Connection) -> None:
            size = memoryview(data).nbytes
            # A ring is given what it sends, so that all of it waits for a moment.
            assert connection.write(data) in (0, size)
            assert connection.writelines([data, b"", data]) in (0, 3 * size)
            assert connection.writelines(iter([])) in (0, 3 * size)
            connection.close()

    with connect(serve(Writer())) as client:
        assert read_all(client) == bytes(memoryview(data)) * 3


def test_what_is_not_bytes_is_refused(serve: Serve) -> None:
    answers: list[BaseException] = []

    class Writer:
        def on_open(self, connection: Any) -> None:
            attempts: list[Callable[[], object]] = [
                lambda: connection.write("text"),
                lambda: connection.write(5),
                lambda: connection.write(None),
                lambda: connection.write(),
                lambda: connection.write(b"", b""),
                lambda: connection.write([1, 2]),
                lambda: connection.writelines([b"x", "text"]),
                lambda: connection.writelines(5),
                lambda: connection.post("x"),
            ]
            for attempt in attempts:
                try:
                    attempt()
                except TypeError as error:
                    answers.append(error)
            connection.close()

    with connect(serve(Writer())) as client:
        assert read_all(client) == b""
    assert len(answers) == 9


def test_a_file_is_sent(serve: Serve, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(content)

    class Files:
        def on_open(self, connection: Connection) -> None:
            connection.write(b"<")
            with path.open("rb") as file:
                connection.send_file(file)
                connection.send_file(file.fileno(), 10, 20)
                connection.send_file(file, offset=len(content) - 5)
                connection.send_file(file, offset=2 * len(content))
            connection.write(b">")
            connection.close()

    with connect(serve(Files())) as client:
        assert read_all(client) == b"<" + content + content[10:30] + content[-5:] + b">"


def test_too_much_is_refused_and_the_connection_goes_on(serve: Serve) -> None:
    class Refused:
        def on_data(self, connection: Connection, data: bytes) -> None:
            with pytest.raises(OSError, match="queue_limit") as refused:
                connection.write(bytes(100_001))
            assert refused.value.errno == errno.ENOBUFS
            connection.write(data)

    with connect(serve(Refused(), queue_limit=100_000)) as client:
        assert ask(client, b"hello") == b"hello"


def test_the_limit_of_the_whole_server(serve: Serve) -> None:
    class Refused:
        def on_data(self, connection: Connection, data: bytes) -> None:
            with pytest.raises(OSError, match="total_queue_limit"):
                connection.write(bytes(50_000_000))  # No socket takes so much at once.
            connection.write(data)

    with connect(serve(Refused(), queue_limit=100_000_000, total_queue_limit=100_000)) as client:
        assert ask(client, b"hello") == b"hello"


# ---- Ends ----------------------------------------------------------------------------------


def test_nothing_is_written_after_close(serve: Serve) -> None:
    for way in ("close", "shutdown", "abort"):

        class Closing(Recorder):
            def on_data(self, connection: Connection, data: bytes, way: str = way) -> None:
                connection.write(b"last words")
                getattr(connection, way)()
                with pytest.raises(BrokenPipeError):
                    connection.write(b"more")
                self.calls.put(("done", connection))

        handler = Closing()
        with connect(serve(handler)) as client:
            handler.opened()
            client.sendall(b"x")
            assert handler.next()[0] == "done"
            if way != "abort":
                assert read_all(client) == b"last words"
        error = handler.closed()
        assert (error and error.errno) == (errno.ECONNABORTED if way == "abort" else None)


def test_half_closed_both_ways(serve: Serve) -> None:
    """Our end is sent, and the peer's data still comes; its end is reported, and it still gets ours."""

    class Half(Recorder):
        def on_open(self, connection: Any) -> None:
            connection.received = b""
            connection.shutdown()

        def on_data(self, connection: Any, data: bytes) -> None:
            connection.received += data

        def on_end(self, connection: Any) -> None:
            assert connection.has_ended
            self.calls.put(("end", connection.received))
            connection.close()

    handler = Half()
    with connect(serve(handler)) as client:
        assert read_all(client) == b""
        client.sendall(b"still there")
        client.shutdown(socket.SHUT_WR)
        assert handler.next() == ("end", b"still there")
        assert handler.closed() is None

    class Late(Recorder):
        def on_end(self, connection: Connection) -> None:
            self.calls.put(("end", connection))

    late = Late()
    with connect(serve(late)) as client:
        connection = late.opened()
        client.shutdown(socket.SHUT_WR)
        assert late.next() == ("end", connection)
        connection.write(b"late")
        connection.close()
        assert read_all(client) == b"late"
        assert late.closed() is None


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_reset_is_reported_and_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    is_reset = threading.Event()

    class Writer(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            assert is_reset.wait(LONG)
            while True:  # The first may come before the reset.
                connection.write(b"x" * 100_000)

    handler = Writer()
    client = connect(serve(handler, queue_limit=1 << 40, total_queue_limit=1 << 40))
    client.sendall(b"x")
    handler.opened()
    reset(client)
    is_reset.set()
    error = handler.closed()
    assert isinstance(error, (ConnectionResetError, BrokenPipeError))
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
    assert caplog.records == []


def test_on_open_refuses(serve: Serve) -> None:
    class Bouncer(Recorder):
        def on_open(self, connection: Connection) -> bool:
            super().on_open(connection)
            connection.write(b"no")
            return False

    handler = Bouncer()
    server = serve(handler)
    with connect(server) as client:
        connection = handler.opened()
        assert read_all(client) == b"no"
        assert connection.fileno() == -1
    serve.end()
    assert server.stats().total.refused == 1
    assert handler.calls.empty()


@pytest.mark.parametrize("answer", [None, True, 0, "", "anything"])
def test_on_open_accepts(serve: Serve, answer: object) -> None:
    class Host(Echo):
        def on_open(self, connection: Connection) -> object:
            return answer

    with connect(serve(Host())) as client:
        assert ask(client, b"hello") == b"hello"


def test_silence_ends_a_connection(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler, idle_timeout=0.05)
    with connect(server) as client:
        handler.opened()
        error = handler.closed()
        assert isinstance(error, TimeoutError)
        assert error.errno == errno.ETIMEDOUT
        assert client.recv(1) == b""  # Nothing was cut off.
    assert server.stats().total.timed_out == 1


@pytest.mark.parametrize("name", ["idle", "read"])
def test_a_connection_has_limits_of_its_own(serve: Serve, name: str) -> None:
    class Impatient(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            limit = getattr(connection, f"set_{name}_timeout")
            limit(None)
            limit(0.05)
            with pytest.raises(ValueError, match="negative"):
                limit(-1)
            with pytest.raises(ValueError, match="NaN"):
                limit(float("nan"))
            connection.set_write_timeout(LONG)

    handler = Impatient()
    with connect(serve(handler, **{f"{name}_timeout": 10 * LONG})) as client:
        handler.opened()
        client.sendall(b"x")
        assert isinstance(handler.closed(), TimeoutError)


def test_a_peer_that_reads_nothing_is_timed_out(serve: Serve) -> None:
    class Writer(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.write(bytes(15_000_000))
            connection.write(b"")

    handler = Writer()
    with connect(serve(handler, write_timeout=0.05)):
        handler.opened()
        assert isinstance(handler.closed(), TimeoutError)


# ---- From other threads --------------------------------------------------------------------


def test_other_threads_write(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        threads = [
            threading.Thread(target=lambda: [connection.write(b"0123456789") for _ in range(200)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert receive(client, 8000) == b"0123456789" * 800
        for thread in threads:
            thread.join(LONG)
        assert connection.writelines([b"good", bytearray(b"bye")]) >= 7
        connection.close()
        assert read_all(client) == b"goodbye"
    assert handler.closed() is None


def test_a_connection_that_is_gone_is_stale(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        assert connection.is_open
        assert connection.fileno() >= 0
        connection.abort()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert isinstance(handler.closed(), ConnectionAbortedError)
    serve.end()
    attempts: list[Callable[[], object]] = [
        lambda: connection.write(b"x"),
        lambda: connection.writelines([b"x"]),
        lambda: connection.post(1),
        connection.close,
        connection.abort,
        connection.pause,
        connection.resume,
        connection.shutdown,
        lambda: connection.queued,
        lambda: connection.set_idle_timeout(1),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="gone") as stale:
            attempt()
        assert stale.value.errno == errno.ESTALE
    assert not connection.is_open
    assert connection.fileno() == -1


def test_what_looks_into_a_connection_does_so_in_its_calls(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)):
        connection = handler.opened()
        for look in (
            lambda: connection.queued,
            lambda: connection.local,
            lambda: connection.is_paused,
            lambda: connection.has_ended,
            lambda: connection.is_stopping,
            lambda: connection.set_idle_timeout(1),
            lambda: connection.send_file(0),
            connection.shutdown,
        ):
            with pytest.raises(PermissionError, match="call of the handler"):
                look()
    assert handler.closed() is None


def test_what_a_connection_says_of_itself(serve: Serve) -> None:
    class Curious(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            assert not connection.is_paused
            connection.pause()
            assert connection.is_paused
            connection.resume()
            assert not connection.is_paused
            assert not connection.has_ended
            assert not connection.is_stopping
            assert connection.queued == 0
            self.calls.put((connection.local, connection.peer, connection.fileno()))

    handler = Curious()
    server = serve(handler)
    with connect(server) as client:
        connection = handler.opened()
        client.sendall(b"x")
        local, peer, fd = handler.next()
        assert local == server.addresses[0]
        assert peer == "{}:{}".format(*client.getsockname())
        assert socket.socket(fileno=os.dup(fd)).getsockname() == client.getpeername()
        assert connection.worker in range(2)
        assert repr(connection) == f"<omnipoll.Connection {connection.id} from {peer}>"
    assert handler.closed() is None
    assert connection.peer == peer


def test_a_value_is_posted(serve: Serve) -> None:
    class Posted(Recorder):
        def on_post(self, connection: Connection, value: int) -> None:
            self.calls.put((value, connection, connection.queued, threading.get_ident()))

    handler = Posted()
    with connect(serve(handler)):
        connection = handler.opened()
        for value in (1, -(2**63), 2**63 - 1):
            connection.post(value)
            posted, target, queued, thread = handler.next()
            assert (posted, target, queued) == (value, connection, 0)
            assert thread != threading.get_ident()
        with pytest.raises(OverflowError):
            connection.post(2**63)
        with pytest.raises(TypeError, match=r"an int, not \['job'\]"):
            connection.post(["job"])  # type: ignore[arg-type]
    assert handler.closed() is None


def test_a_paused_connection_hears_nothing(serve: Serve) -> None:
    class Paused(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.pause()

        def on_data(self, connection: Connection, data: bytes) -> None:
            self.calls.put(("data", data))

        def on_post(self, connection: Connection, value: int) -> None:
            self.calls.put(("posted", value))

    handler = Paused()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        client.sendall(b"hello")
        for value in range(3):  # Each is a turn of the loop, after the data came.
            connection.post(value)
            assert handler.next() == ("posted", value)
        connection.resume()
        assert handler.next() == ("data", b"hello")
        connection.pause()
        connection.resume()
        client.sendall(b"again")
        assert handler.next() == ("data", b"again")
    assert handler.closed() is None


def test_broadcast(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler)
    assert server.broadcast(b"nobody") == 0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(4)]
        for _ in clients:
            handler.opened()
        assert server.broadcast(bytearray(b"hello all")) == 4
        for client in clients:
            assert receive(client, 9) == b"hello all"
        with pytest.raises(TypeError):
            server.broadcast("text")  # type: ignore[arg-type]


def test_a_broadcast_passes_over_a_client_without_room(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler, queue_limit=1000)
    with connect(server):
        handler.opened()
        assert server.broadcast(bytes(1001)) == 0
    assert server.stats().total.writes_refused == 1


# ---- Exceptions ----------------------------------------------------------------------------


class Clumsy(Recorder):
    """Stumbles in one method."""

    def __init__(self, where: str) -> None:
        super().__init__()
        setattr(self, where, self.stumble)

    def stumble(self, connection: Connection, *_: object) -> None:
        raise ZeroDivisionError("stumbled")


def flood(connection: Connection, data: bytes) -> None:
    connection.write(bytes(15_000_000))


@pytest.mark.parametrize("where", ["on_data", "on_end", "on_post", "on_drain", "on_stop"])
def test_an_exception_ends_the_connection(serve: Serve, where: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = Clumsy(where)
    if where == "on_drain":
        handler.on_data = flood  # type: ignore[method-assign]
    server = serve(handler)
    with connect(server) as client, contextlib.suppress(ConnectionResetError):
        connection = handler.opened()
        if where in ("on_data", "on_drain"):
            client.sendall(b"x")
        elif where == "on_end":
            client.shutdown(socket.SHUT_WR)
        elif where == "on_post":
            connection.post(1)
        else:
            server.stop(LONG)
        read_all(client)
    assert isinstance(handler.closed(), ConnectionAbortedError)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("omnipoll", logging.ERROR)
    assert record.getMessage() == f"exception in {where} for {connection.peer}"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert "raise ZeroDivisionError" in caplog.text
    if where == "on_data":
        del handler.on_data
    if where in ("on_data", "on_post"):
        with connect(server) as client:  # The others don't notice.
            handler.opened()
            if where == "on_post":
                assert ask(client, b"hello") == b"hello"
        assert where == "on_data" or handler.closed() is None


def test_an_exception_leaves_the_others_alone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Fragile(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.write(data)
            assert data != b"stumble"

    handler = Fragile()
    server = serve(handler)
    with connect(server) as other:
        assert ask(other, b"before") == b"before"
        with connect(server) as client, pytest.raises((ConnectionResetError, AssertionError)):
            client.sendall(b"stumble")
            receive(client, 100)
        assert ask(other, b"after") == b"after"
    assert len(caplog.records) == 1


def test_an_exception_in_on_open_refuses(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Clumsy("on_open")
    server = serve(handler)
    with pytest.raises(ConnectionResetError), connect(server) as client:
        client.recv(1)
    serve.end()
    assert handler.calls.empty()
    assert [record.getMessage().split(" for ")[0] for record in caplog.records] == ["exception in on_open"]


def test_an_exception_in_on_close_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Clumsy("on_close")
    with connect(serve(handler)) as client:
        assert ask(client, b"x") == b"x"
    serve.end()
    assert [record.getMessage().split(" for ")[0] for record in caplog.records] == ["exception in on_close"]


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_program_comes_out_of_run(
    model: str, engine: str, ending: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Last(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            raise ending(7)

    handler = Last()
    with (
        pytest.raises(ending) as raised,
        Server(handler, "127.0.0.1:0", model=model, engine=engine) as server,
    ):
        with connect(server) as client, pytest.raises(ConnectionResetError):
            client.sendall(b"x")
            client.recv(1)
        server._thread.join(LONG)  # type: ignore[union-attr]
    assert raised.value.args == (7,)
    assert handler.opened()
    assert isinstance(handler.closed(), OSError)
    assert caplog.records == []


# ---- Handlers ------------------------------------------------------------------------------


def test_a_handler_without_methods(serve: Serve) -> None:
    with connect(serve(object())) as client:
        client.sendall(b"into the void")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""


def test_any_object_is_a_handler(serve: Serve) -> None:
    class Static:
        @staticmethod
        def on_data(connection: Connection, data: bytes) -> None:
            connection.write(data)

    functions = types.SimpleNamespace(on_data=Static.on_data, on_open=None)
    module = types.ModuleType("handler")
    module.on_data = Static.on_data  # type: ignore[attr-defined]
    for handler in (Static, Static(), functions, module):
        with connect(serve(handler)) as client:
            assert ask(client, b"hello") == b"hello"


def test_what_a_handler_raises_when_it_is_asked_comes_out() -> None:
    class Broken:
        @property
        def on_data(self) -> None:
            raise LookupError("broken")

    with pytest.raises(LookupError):
        Server(Broken())  # type: ignore[arg-type]


def test_a_connection_takes_any_attribute(serve: Serve) -> None:
    class Counter(Recorder):
        def on_open(self, connection: Any) -> None:
            connection.count = 0

        def on_data(self, connection: Any, data: bytes) -> None:
            connection.count += len(data)
            connection.write(data)

        def on_close(self, connection: Any, error: OSError | None) -> None:
            self.calls.put(("close", connection.count, error))

    handler = Counter()
    with connect(serve(handler)) as client:
        for _ in range(3):
            ask(client, b"1234")
    assert handler.next() == ("close", 12, None)


def test_a_connection_is_let_go_of(serve: Serve) -> None:
    references: list[weakref.ref[Connection]] = []

    class Forgetful(Echo):
        def on_open(self, connection: Any) -> None:
            connection.itself = connection if len(references) else None  # A cycle, or none.
            references.append(weakref.ref(connection))

    server = serve(Forgetful())
    for _ in range(2):
        with connect(server) as client:
            assert ask(client, b"x") == b"x"
    serve.end()
    assert references[0]() is None
    gc.collect()
    assert references[1]() is None


def test_a_server_and_its_handler_are_let_go_of(model: str, engine: str) -> None:
    class Handler(Echo):
        server: Server

    handler = Handler()
    handler.server = Server(handler, "127.0.0.1:0", model=model, engine=engine)
    with handler.server, connect(handler.server) as client:
        ask(client, b"x")
    reference = weakref.ref(handler.server)
    del handler
    gc.collect()
    assert reference() is None


def test_descriptors_are_given_back(model: str, engine: str) -> None:
    def once() -> None:
        with Server(Echo(), "127.0.0.1:0", model=model, engine=engine) as server, connect(server) as client:
            ask(client, b"x")
        del server
        gc.collect()

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- Lifecycle -----------------------------------------------------------------------------


def test_stop_drains(serve: Serve) -> None:
    class Draining(Recorder):
        def on_stop(self, connection: Connection) -> None:
            self.calls.put(("stop", connection, connection.is_stopping))

    handler = Draining()
    server = serve(handler)
    with connect(server) as client:
        connection = handler.opened()
        server.stop(LONG)
        assert handler.next() == ("stop", connection, True)
        refused(server.addresses[0])
        assert ask(client, b"still there") == b"still there"
    call: tuple[Any, ...] = ()
    while call[:2] != ("close", connection):  # Others may have come in the last moment.
        call = handler.next()
    assert call[2] is None


def test_when_the_drain_is_over_connections_are_reset(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler, drain=0.05)
    with connect(server) as client:
        handler.opened()
        serve.end()
        error = handler.closed()
        assert error is not None
        assert error.errno == errno.ECANCELED
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_stop_before_run_counts(model: str, engine: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=model, engine=engine)
    server.stop()
    server.run()
    with pytest.raises(ValueError, match="runs once"):
        server.run()


def test_a_handler_stops_its_server(model: str, engine: str) -> None:
    class Once(Echo):
        server: Server

        def on_close(self, connection: Connection, error: OSError | None) -> None:
            self.server.stop()

    handler = Once()
    server = handler.server = Server(handler, "127.0.0.1:0", model=model, engine=engine)
    thread = threading.Thread(target=server.run)
    thread.start()
    with connect(server) as client:
        assert ask(client, b"x") == b"x"
    thread.join(LONG)
    assert not thread.is_alive()


def test_the_with_block_raises_what_run_raises(model: str, engine: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=model, engine=engine)
    server.stop()
    server.run()
    with pytest.raises(ValueError, match="runs once"), server:
        pass


def test_an_exception_in_the_with_block_comes_out(model: str, engine: str) -> None:
    with pytest.raises(LookupError), Server(Echo(), "127.0.0.1:0", model=model, engine=engine):
        raise LookupError


@pytest.mark.parametrize("forking", FORKING)
def test_a_with_block_does_not_fork(engine: str, forking: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=forking, engine=engine)
    with pytest.raises(RuntimeError, match="run"), server:
        pass
    with pytest.raises(OSError, match="share no memory") as refused:
        server.broadcast(b"x")
    assert refused.value.errno == errno.ENOTSUP


def test_listeners_are_handed_over(serve: Serve) -> None:
    old = serve(Echo())
    fd = old.dup_listener()
    with pytest.raises(FileNotFoundError):
        old.dup_listener(1)
    new = serve(Echo(), f"fd:{fd}")
    assert new.addresses == old.addresses
    old.stop()
    old._thread.join(LONG)  # type: ignore[union-attr]
    with connect(new) as client:
        assert ask(client, b"hello") == b"hello"
    os.close(fd)


def test_the_file_of_a_unix_socket_is_removed_or_kept(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for kept in (False, True):
        old = serve(Echo(), f"unix:{path}")
        fd = old.dup_listener()
        if kept:
            old.keep_files()
        old.stop()
        old._thread.join(LONG)  # type: ignore[union-attr]
        assert path.exists() == kept
        if kept:
            new = serve(Echo(), f"fd:{fd}")
            with connect(old.addresses[0]) as client:
                assert ask(client, b"hello") == b"hello"
            new.stop()
            new._thread.join(LONG)  # type: ignore[union-attr]
            assert path.exists()
        os.close(fd)


def test_several_addresses(serve: Serve, tmp_path: Path) -> None:
    server = serve(Echo(), ["127.0.0.1:0", f"unix:{tmp_path}/socket"])
    assert server.addresses[1] == f"unix:{tmp_path}/socket"
    for address in server.addresses:
        with connect(address) as client:
            assert ask(client, b"hello") == b"hello"


def test_a_unix_socket_without_a_file(serve: Serve) -> None:
    name = f"unix:@omnipoll-{os.getpid()}-{serve.model}-{serve.engine}"
    handler = Recorder()
    server = serve(handler, name)
    assert server.addresses == [name]
    with connect(name) as client:
        connection = handler.opened()
        assert connection.peer == "unix:"
        assert ask(client, b"hello") == b"hello"


# ---- Datagrams -----------------------------------------------------------------------------


class Datagrams:
    def __init__(self) -> None:
        self.kept: list[Datagram] = []

    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        assert data != b"stumble"
        self.kept.append(datagram)
        datagram.reply(data)
        datagram.send_to(datagram.peer, bytearray(data.upper()))
        with pytest.raises(ValueError, match="no IP address"):
            datagram.send_to("nobody", data)
        with pytest.raises(OSError, match=r".") as refused:
            datagram.reply(bytes(65_508))
        assert refused.value.errno == errno.EMSGSIZE


def test_datagrams(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Datagrams()
    if serve.model == "thread":
        with pytest.raises(OSError, match="datagram") as refused:
            serve(handler, "udp:127.0.0.1:0")
        assert refused.value.errno == errno.ENOTSUP
        return
    server = serve(handler, "udp:127.0.0.1:0")
    host, port = server.addresses[0].partition("udp:")[2].split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.connect((host, int(port)))
        client.send(b"stumble")
        client.send(b"hello")
        assert client.recv(100) == b"hello"
        assert client.recv(100) == b"HELLO"
        name = "{}:{}".format(*client.getsockname())
    serve.end()
    (datagram,) = handler.kept
    assert datagram.peer == name
    assert datagram.local == f"{host}:{port}"
    assert repr(datagram) == f"<omnipoll.Datagram from {name}>"
    with pytest.raises(OSError, match="on_datagram") as stale:
        datagram.reply(b"late")
    assert stale.value.errno == errno.ESTALE
    assert [record.getMessage() for record in caplog.records] == [f"exception in on_datagram for {name}"]
    total = server.stats().total
    assert (total.datagrams_in, total.datagrams_out) == (2, 2)


class Whereabouts:
    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        datagram.reply(datagram.local.encode())


def test_a_datagram_has_the_address_that_was_asked(serve: Serve) -> None:
    """The answer comes from there: a connected client receives no other."""
    if serve.model == "thread":
        return
    for address in ("udp:0.0.0.0:0", "udp:*:0"):
        port = int(serve(Whereabouts(), address).addresses[0].rpartition(":")[2])
        for host in ("127.0.0.1", "127.0.0.2"):
            assert ask_where((host, port)) == f"{host}:{port}".encode()


def test_an_inherited_datagram_socket_is_served(serve: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed:
        passed.bind(("127.0.0.1", 0))
        host, port = passed.getsockname()
        if serve.model == "thread":
            with pytest.raises(OSError, match="datagram") as refused:
                serve(Whereabouts(), f"fd:{passed.fileno()}")
            assert refused.value.errno == errno.ENOTSUP
            return
        server = serve(Whereabouts(), f"fd:{passed.fileno()}")
    assert server.addresses == [f"udp:{host}:{port}"]
    assert ask_where((host, port)) == f"{host}:{port}".encode()


# ---- Mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "threads"}, "no model named 'threads'"),
        ({"engine": "kpoll"}, "no engine named 'kpoll'"),
        ({"workers": 0}, "worker"),
        ({"max_clients": 0}, "client"),
        ({"low_water": 2, "high_water": 1}, "low mark"),
        ({"linger": -1}, "linger must not be negative"),
        ({"drain": -0.5}, "drain must not be negative"),
        ({"idle_timeout": float("nan")}, "idle_timeout must be a number"),
        ({"address": "nowhere"}, "no port"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Server(Echo(), **options)


def test_a_stranger_among_the_options() -> None:
    with pytest.raises(TypeError):
        Server(Echo(), colour="blue")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Server()  # type: ignore[call-arg]


def test_what_a_server_says_of_itself() -> None:
    server = Server(Echo(), model="cores", workers=3, engine="poll", drain=None)
    assert server.addresses == []
    assert server.drain is None
    address = server.listen("127.0.0.1:0")
    assert server.addresses == [address]
    assert repr(server) == f"<omnipoll.Server cores on poll: {address}>"
    assert len(server.stats().workers) == 3
    assert "accepted: 0" in repr(server.stats())
    assert "accepted: 0" in repr(server.stats().total)
    with pytest.raises(OSError, match=r".") as taken:
        Server(Echo(), address)
    assert taken.value.errno == errno.EADDRINUSE
    assert Server(Echo()).engine == omnipoll.Poller().engine


def test_every_engine_is_tried() -> None:
    assert [Server(Echo(), engine=engine).engine for engine in ENGINES] == list(ENGINES)
