"""Handlers of a server in this process: what they may be, what they may raise, and what is let go of."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import types
import weakref
from typing import Any

import pytest
from serving import LONG, Echo, Recorder, Serve, ask, connect, read_all, receive

from omnipoll import Connection, Server

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
