"""Connections of a server in this process: what is sent and received, and how they end."""

from __future__ import annotations

import array
import errno
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import LONG, Echo, Recorder, Serve, ask, connect, read_all, receive

from omnipoll import Connection

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


def test_frames(serve: Serve) -> None:
    class Brackets(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.set_frame_until(b"\r\n", 8)

        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.write(b"<" + data + b">" + b"!" * connection.has_ended)
            if data == b"two\r\n":
                connection.set_frame_exactly(2)
            elif data == b"cd":
                connection.set_frame_any()

    handler = Brackets()
    server = serve(handler)
    with connect(server) as client:
        client.sendall(b"one\r\ntwo\r\nabcdefgh")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"<one\r\n><two\r\n><ab><cd><efgh>"
    handler.opened()
    assert handler.closed() is None
    with connect(server) as client:
        client.sendall(b"line\r\nrest")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"<line\r\n><rest>!"
    handler.opened()
    assert handler.closed() is None
    with connect(server) as client:
        client.sendall(b"1234567\r\n")
        handler.opened()
        error = handler.closed()
        assert isinstance(error, OSError)
        assert error.errno == errno.EMSGSIZE


def test_a_frame_of_at_least_so_many_bytes(serve: Serve) -> None:
    class Four(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.set_frame_at_least(4)

        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.write(b"<" + data + b">" + b"!" * connection.has_ended)

    handler = Four()
    server = serve(handler)
    with connect(server) as client:
        client.sendall(b"abc")
        while server.stats().total.bytes_in < 3:
            pass
        client.sendall(b"de")
        assert receive(client, 7) == b"<abcde>"
        client.sendall(b"end")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"<end>!"
    handler.opened()
    assert handler.closed() is None


def test_what_is_no_frame(serve: Serve) -> None:
    class Wrong(Recorder):
        def on_open(self, connection: Connection) -> None:
            for delimiter in (b"", b"12345"):
                with pytest.raises(ValueError, match="delimiter"):
                    connection.set_frame_until(delimiter, 100)
            with pytest.raises(ValueError, match="delimiter"):
                connection.set_frame_until(b"\r\n", 1)
            with pytest.raises(ValueError, match="byte"):
                connection.set_frame_exactly(0)
            with pytest.raises(ValueError, match="byte"):
                connection.set_frame_at_least(0)
            with pytest.raises(TypeError):
                connection.set_frame_until("\n", 100)  # type: ignore[arg-type]
            super().on_open(connection)

    handler = Wrong()
    with connect(serve(handler)) as client:
        handler.opened()
        assert ask(client, b"hello") == b"hello"


def test_a_timeout_asks_first(serve: Serve) -> None:
    class Patient(Recorder):
        asked: tuple[str, ...] = ()

        def on_timeout(self, connection: Connection, which: str) -> None:
            self.asked += (which,)
            if len(self.asked) == 1:
                connection.restart_timeouts()
            elif len(self.asked) == 2:
                connection.set_idle_timeout(None)
                connection.set_read_timeout(0.02)
            else:
                connection.write(b"goodbye")
                connection.close()

    handler = Patient()
    with connect(serve(handler, idle_timeout=0.02)) as client:
        handler.opened()
        assert read_all(client) == b"goodbye"
    assert handler.closed() is None
    assert handler.asked == ("idle", "idle", "read")


def test_a_connection_has_a_timer(serve: Serve) -> None:
    class Heart(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.set_timer(3600)
            connection.set_timer(0.005)
            with pytest.raises(ValueError, match="negative"):
                connection.set_timer(-1)

        def on_timer(self, connection: Connection) -> None:
            connection.write(b".")
            connection.set_timer(0.005)

        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.set_timer(None)
            connection.write(data)
            connection.close()

    handler = Heart()
    with connect(serve(handler)) as client:
        began = time.monotonic()
        for _ in range(10):
            assert client.recv(1) == b"."
        assert time.monotonic() - began >= 0.05 - 0.005  # One may have been sent before.
        client.sendall(b"enough")
        assert read_all(client).strip(b".") == b"enough"
    assert handler.opened()
    assert handler.closed() is None


def test_an_exception_in_on_timer_ends_the_connection(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.set_timer(0)

        def on_timer(self, connection: Connection) -> None:
            raise RuntimeError("as the test wants it")

    handler = Faulty()
    with connect(serve(handler)) as client:
        client.sendall(b"now")
        handler.opened()
        assert isinstance(handler.closed(), ConnectionAbortedError)
    assert "on_timer" in caplog.text
