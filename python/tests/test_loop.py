"""A loop of the program's own, by handler: its handlers and what they raise, its thread, mistakes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import weakref

import pytest
from conftest import LONG
from loops import ADDRESS, Served, Stop, in_thread
from serving import Echo, ask, connect

from omnipoll import Connection, Event, Loop


def test_echo_by_handler(engine: str) -> None:
    with Served(engine, Echo()) as served, connect(served.address) as client:
        assert ask(client, b"hello") == b"hello"
        assert served.loop.engine == engine


def test_each_address_may_have_a_handler_of_its_own(engine: str) -> None:
    class Shout:
        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.write(data.upper())

    with Loop(engine, handler=Echo()) as loop:
        echo, shout = loop.listen(ADDRESS), loop.listen(ADDRESS, Shout())

        def talk() -> tuple[bytes, bytes]:
            with connect(echo) as one, connect(shout) as two:
                answers = ask(one, b"hello"), ask(two, b"hello")
            loop.stop(0)
            return answers

        join = in_thread(talk)
        loop.run()
        assert join() == (b"hello", b"HELLO")


def test_a_handler_is_given_up_with_its_last_connection(engine: str) -> None:
    """A program may make one for each connection."""

    class Ask(Echo):
        def on_open(self, connection: Connection) -> None:
            connection.abort()

    with Loop(engine, handler=Echo()) as loop:
        address = loop.listen(ADDRESS)
        handlers = weakref.WeakSet[Ask]()
        for _ in range(300):
            ask = Ask()
            handlers.add(ask)
            connection = loop.connect(address, ask)
            while connection.is_open:
                loop.run_once(LONG)
        del ask, connection
        assert len(handlers) < 200


def test_a_loop_belongs_to_its_thread(loop: Loop) -> None:
    address = loop.listen(ADDRESS, Echo())
    for call in (
        loop.run,
        loop.run_once,
        loop.wait,
        loop.close,
        lambda: loop.listen(ADDRESS),
        lambda: loop.connect(address),
        lambda: loop.datagram_sockets,
    ):
        with pytest.raises(PermissionError, match="thread that has made it"):
            in_thread(call)()
    in_thread(loop.stop)()
    loop.run()


def test_an_exception_ends_one_connection(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Echo):
        def on_data(self, connection: Connection, data: bytes) -> None:
            if data == b"break":
                raise ZeroDivisionError("on purpose")
            super().on_data(connection, data)

    with Served(engine, Broken()) as served, connect(served.address) as one, connect(served.address) as two:
        one.sendall(b"break")
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        assert ask(two, b"fine") == b"fine"
    (record,) = caplog.records
    assert "on_data" in record.getMessage()
    assert record.exc_info is not None


def test_an_exception_of_on_event_is_logged(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Stop):
        def on_event(self, loop: Loop, event: Event) -> None:
            super().on_event(loop, event)
            raise ZeroDivisionError("on purpose")

    with Loop(engine, handler=Broken()) as loop:
        loop.poller.post(1)
        loop.run()
    assert ["on_event" in record.getMessage() for record in caplog.records] == [True]


def test_what_ends_a_program_comes_out_of_run_and_the_loop_goes_on(engine: str) -> None:
    class Quit(Stop):
        def on_event(self, loop: Loop, event: Event) -> None:
            if event.token == "quit":
                raise SystemExit(3)
            super().on_event(loop, event)

    with Loop(engine, handler=Quit()) as loop:
        loop.poller.post("quit")
        with pytest.raises(SystemExit):
            loop.run()
        loop.poller.post("stop")
        loop.run()


@pytest.mark.parametrize("face", ["run", "wait"])
def test_ctrl_c(engine: str, face: str) -> None:
    with Loop(engine, handler=Stop()) as loop:
        main, here = threading.get_ident(), sys._getframe()
        began = threading.Event()
        interrupted: list[int] = []

        def interrupt() -> None:
            began.wait(LONG)
            while not interrupted:
                signal.pthread_kill(main, signal.SIGINT)
                began.wait(0)

        def handle(number: int, frame: object) -> None:
            # Python drops what is raised in a finalizer, which may run just then. Another signal may be on
            # its way after the first.
            if frame is here and not interrupted:
                interrupted.append(number)
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handle)
        try:
            join = in_thread(interrupt)
            with pytest.raises(KeyboardInterrupt):
                began.set()
                getattr(loop, face)()
            join()
        finally:
            signal.signal(signal.SIGINT, before)
        loop.poller.post(1)
        loop.run()


def test_a_run_without_a_handler_is_refused(engine: str) -> None:
    with Loop(engine) as loop:
        with pytest.raises(ValueError, match="calls a handler"):
            loop.run()
        loop.listen(ADDRESS, Echo())
        loop.run_once(0)
        loop.listen(ADDRESS)
        with pytest.raises(ValueError, match="calls a handler"):
            loop.run()


def test_mistakes_are_said_at_once(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    class Async:
        async def on_data(self, connection: Connection, data: bytes) -> None: ...

    class Misspelt:
        def on_dta(self, connection: Connection, data: bytes) -> None: ...

    with pytest.raises(TypeError, match="a loop does not await"):
        Loop(engine, handler=Async())  # type: ignore[arg-type]
    with Loop(engine, handler=Echo()) as loop:
        with pytest.raises(TypeError, match="did you mean on_data"):
            loop.listen(ADDRESS, Misspelt())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you mean 'max_clients'"):
            Loop(max_client=3)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="no engine named"):
            Loop("epol")
        with pytest.raises(ValueError, match="low water mark"):
            Loop(low_water=2, high_water=1)
        loop.poller.post(1)
        loop.run_once(LONG)
    assert ["on_event" in record.getMessage() for record in caplog.records] == [True]
    assert caplog.records[0].levelno == logging.WARNING
