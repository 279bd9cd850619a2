"""Handlers, options and arguments that can't be meant: said at once, and in words."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any

import pytest
from serving import MODELS, Echo

import omnipoll
from omnipoll import READ, Connection, Poller, Server, serve


class Async:
    async def on_data(self, connection: Connection, data: bytes) -> None:
        connection.write(data)


class AsyncCall:
    async def __call__(self, connection: Connection, data: bytes) -> None:
        connection.write(data)


class AsyncInside:
    on_data = AsyncCall()


class Receive:
    def on_recieve(self, connection: Connection, data: bytes) -> None:
        connection.write(data)


class Typo(Echo):
    def on_colse(self, connection: Connection, error: OSError | None) -> None:
        pass


class Number:
    on_data = 3


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (None, "not None"),
        (Echo, r"Echo is a class: use Echo\(\)"),
        (Async(), "on_data is async"),
        (AsyncInside(), "on_data is async"),
        (Receive(), "on_recieve, only on_open, on_data, .*: did you mean on_data?"),
        (Typo(), "on_colse: did you mean on_close?"),
        (Number(), "on_data can't be called: it is 3"),
    ],
)
def test_what_is_no_handler(handler: Any, words: str) -> None:
    for model in MODELS:
        with pytest.raises(TypeError, match=words):
            Server(handler, "127.0.0.1:0", model=model)


class Lines(Echo):
    """Has a callback of its own."""

    def on_line(self, line: bytes) -> None:
        pass


class Silent(Echo):
    on_close = None


@pytest.mark.parametrize("handler", [Lines(), Silent()])
def test_what_is_one(handler: Any) -> None:
    assert Server(handler, "127.0.0.1:0").addresses


if TYPE_CHECKING:

    class Client(Connection):
        received: int


def test_types_see_what_a_connection_has_not() -> None:
    """Neither a name that is misspelt nor an attribute of the program's that is not declared."""

    class Declared(Echo):
        def on_open(self, connection: Client) -> None:
            connection.received = 0

    class Misspelt(Echo):
        def on_open(self, connection: Connection) -> None:
            connection.wirte(b"hello")  # type: ignore[attr-defined]

    class Undeclared(Echo):
        def on_open(self, connection: Client) -> None:
            connection.head = 0  # type: ignore[attr-defined]

    for handler in (Declared(), Misspelt(), Undeclared()):
        assert Server(handler, "127.0.0.1:0").addresses


def test_types_see_the_same() -> None:
    """mypy must find each of these: it complains of an ignore that is not needed."""
    with pytest.raises(TypeError):
        Server(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Server(Echo)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Server(Async())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Server(Receive())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        serve(Echo(), "127.0.0.1:0", modle="cores")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"modle": "cores"},
            TypeError,
            r"argument 'modle': did you mean 'model'\? there are model, engine, .*, hang_timeout$",
        ),
        ({"colour": 3}, TypeError, "argument 'colour': there are model, "),
        (
            {"model": "core"},
            ValueError,
            r"model named 'core': did you mean 'cores'\? there are reactor, cores, ",
        ),
        ({"model": "x"}, ValueError, "model named 'x': there are reactor, cores, thread, fork, prefork$"),
        ({"engine": "iouring"}, ValueError, r"engine named 'iouring': did you mean 'io_uring'\? there are "),
    ],
)
def test_options_that_are_not_known(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Server(Echo(), **options)
    with pytest.raises(error, match=words):
        serve(Echo(), "127.0.0.1:0", **options)


def test_an_engine_that_is_not_known() -> None:
    with pytest.raises(
        ValueError, match=r"engine named 'epol': did you mean 'epoll'\? there are select, poll, "
    ):
        Poller("epol")


def test_an_address_in_parts() -> None:
    with pytest.raises(TypeError, match=r"'127.0.0.1:0', and not \('127.0.0.1', 0\)"):
        Server(Echo(), ("127.0.0.1", 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an address is a string"):
        Server(Echo(), 8080)  # type: ignore[arg-type]


def test_a_timedelta_is_no_number_of_seconds(poller: Poller) -> None:
    second: Any = datetime.timedelta(seconds=1)
    for use in (poller.wait, poller.timer_add, omnipoll.DefaultSelector().select):
        with pytest.raises(TypeError, match="in seconds, not a timedelta"):
            use(second)
    with pytest.raises(TypeError, match="must be real number"):
        Server(Echo(), idle_timeout=second)


def test_a_second_with_block() -> None:
    server = Server(Echo(), "127.0.0.1:0")
    with server, pytest.raises(RuntimeError, match="once"):
        server.__enter__()
    with pytest.raises(RuntimeError, match="once"):
        server.__enter__()


def test_register_none(selector: omnipoll.EpollSelector, pipe: Any) -> None:
    none: Any = None
    with pytest.raises(ValueError, match="Invalid events: None"):
        selector.register(pipe.reader, none)


def test_pollers_have_a_descriptor_where_the_engine_has(engine: str, pipe: Any) -> None:
    with Poller(engine) as inner, Poller(engine) as outer:
        if engine != "epoll":
            with pytest.raises(OSError, match=f"the {engine} engine has no descriptor"):
                inner.fileno()
            return
        inner.add(pipe.reader, READ)
        outer.add(inner, READ)
        assert outer.wait(0) == []
        os.write(pipe.writer, b"x")
        assert [event.token for event in outer.wait(10)] == [inner]
        outer.remove(inner)
    with pytest.raises(ValueError, match="closed"):
        inner.fileno()


def test_the_default_selector_has_a_descriptor(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIPOLL_ENGINE", engine)
    with omnipoll.DefaultSelector() as selector:
        if engine != "epoll":
            with pytest.raises(OSError, match="no descriptor"):
                selector.fileno()
        else:
            assert selector.fileno() > 2
