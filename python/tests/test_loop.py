"""A loop of the program's own: by handler and pulled, alone and with others."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from conftest import LONG, Pipe, stale
from serving import Echo, ask, connect, read_all, receive

import omnipoll
from omnipoll import Connection, Event, Loop, LoopEvent

ADDRESS = "127.0.0.1:0"


@pytest.fixture
def loop(engine: str) -> Iterator[Loop]:
    with Loop(engine) as loop:
        yield loop


class Stop:
    """Stops its loop with the first event of its own."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, loop: Loop, event: Event) -> None:
        self.events.append(event)
        loop.stop()


def pulled(loop: Loop, kind: int) -> LoopEvent:
    """The first event of that kind; a DATA is answered, and an ENDED closed."""
    while True:
        events = loop.wait(LONG)
        assert events, f"no event of kind {kind} in time"
        for event in events:
            if event.kind == omnipoll.DATA:
                event.connection.write(event.data)
            elif event.kind == omnipoll.ENDED:
                event.connection.close()
        for event in events:
            if event.kind == kind:
                return event


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; what is returned waits for it, and returns or raises what it has."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as raised:
            result.append(raised)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(LONG)
        assert not thread.is_alive()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    return join


class Served:
    """A loop that runs by handler in a thread of its own."""

    def __init__(self, engine: str, handler: Any, **options: Any) -> None:
        self.made = threading.Event()
        self.engine, self.handler, self.options = engine, handler, options
        self.join = in_thread(self.run)
        assert self.made.wait(LONG)

    def run(self) -> None:
        with Loop(self.engine, handler=self.handler, **self.options) as self.loop:
            self.address = self.loop.listen(ADDRESS)
            self.made.set()
            self.loop.run()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):
            self.loop.stop(0)
        self.join()


def test_echo_by_handler(engine: str) -> None:
    with Served(engine, Echo()) as served, connect(served.address) as client:
        assert ask(client, b"hello") == b"hello"
        assert served.loop.engine == engine


def test_echo_pulled(loop: Loop) -> None:
    token = object()
    with connect(loop.listen(ADDRESS, token=token)) as client:
        accepted = pulled(loop, omnipoll.ACCEPTED)
        assert accepted.token is token
        assert accepted.connection.token is token
        assert accepted.connection.loop is loop
        assert not accepted.connection.is_outgoing
        client.sendall(b"hello")
        data = pulled(loop, omnipoll.DATA)
        assert data.data == b"hello"
        assert data.connection is accepted.connection
        assert data.token is token
        loop.wait(0)  # The ring sends small writes when the loop waits.
        assert client.recv(100) == b"hello"
        client.shutdown(socket.SHUT_WR)
        closed = pulled(loop, omnipoll.CLOSED)
        assert closed.connection is accepted.connection
        assert closed.error is None
        stale(lambda: closed.connection.write(b"more"))


def test_more_events_than_asked_for_come_with_the_next_wait(loop: Loop) -> None:
    for number in range(5):
        loop.poller.post(number)
    assert [event.token for event in loop.wait(LONG, max_events=2)] == [0, 1]
    assert [event.token for event in loop.wait(LONG, 2)] == [2, 3]
    assert [event.token for event in loop.wait(LONG)] == [4]
    assert loop.wait(0) == []
    with pytest.raises(ValueError, match="max_events"):
        loop.wait(0, max_events=0)
    with pytest.raises(ValueError, match="negative"):
        loop.wait(-1)


def test_much_data_is_returned_in_pieces(loop: Loop) -> None:
    """More than a wait has room for, on several connections at once."""
    address = loop.listen(ADDRESS)
    sent = {token: os.urandom(200 << 10) for token in range(16)}
    received = {token: bytearray() for token in sent}
    clients = [loop.connect(address, token=token) for token in sent]
    accepted: list[Connection] = []
    while len(accepted) < len(clients):
        accepted += [event.connection for event in loop.wait(LONG) if event.kind == omnipoll.ACCEPTED]
    for client in clients:
        client.write(sent[client.token])
        client.close()
    ends = 0
    of_peer = {client.local: client.token for client in clients}
    while ends < len(clients):
        events = loop.wait(LONG)
        assert sum(len(event.data) for event in events) <= 256 << 10
        for event in events:
            if event.kind == omnipoll.DATA:
                received[of_peer[event.connection.peer]] += event.data
            elif event.kind == omnipoll.ENDED:
                event.connection.close()
                ends += 1
    assert received == sent


def test_two_loops_talk_to_each_other(engine: str) -> None:
    """One answers by handler, the other asks, pulled, in this thread."""
    with Served(engine, Echo()) as served, Loop(engine) as loop:
        connection = loop.connect(served.address, token="out")
        assert connection.write(b"early") is not None
        opened = pulled(loop, omnipoll.CONNECTED)
        assert opened.connection is connection
        assert opened.token == "out"
        assert connection.is_outgoing
        assert connection.peer == served.address
        received = b""
        while received != b"early":
            for event in loop.wait(LONG):
                received += event.data
        for number in range(100):
            message = b"%d" % number
            connection.write(message)
            received = b""
            while received != message:
                for event in loop.wait(LONG):
                    received += event.data
        connection.close()
        assert pulled(loop, omnipoll.CLOSED).error is None


class Everything:
    """What its own events have said, until a number of them has come."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen: dict[Any, Any] = {}

    def on_event(self, loop: Loop, event: Event | LoopEvent) -> None:
        self.seen[event.token] = event.value
        if len(self.seen) == self.count:
            loop.stop()


@pytest.mark.parametrize("face", ["handler", "pulled"])
def test_timers_descriptors_signals_children_and_posts(engine: str, face: str, pipe: Pipe) -> None:
    everything = Everything(5)
    with Loop(engine, handler=everything) as loop:
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        loop.poller.timer_add(0.001, token="timer")
        loop.poller.add(pipe.reader, omnipoll.READ | omnipoll.ONESHOT, token="descriptor")
        loop.poller.signal_add(signal.SIGUSR1, token="signal")
        loop.poller.child_add(child, token="child")
        os.write(pipe.writer, b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        in_thread(lambda: loop.poller.post("post", 42))()
        if face == "handler":
            loop.run()
        while len(everything.seen) < 5:
            for event in loop.wait(LONG):
                everything.on_event(loop, event)
        child.returncode = os.waitstatus_to_exitcode(everything.seen.pop("child"))
        assert child.returncode == 3
    assert everything.seen == {
        "timer": 1,
        "descriptor": pipe.reader,
        "signal": signal.SIGUSR1,
        "post": 42,
    }


def test_the_poller_of_a_loop_is_the_loops(loop: Loop) -> None:
    poller = loop.poller
    assert poller is loop.poller
    for only_the_loops in (
        poller.wait,
        poller.close,
        poller.fileno,
        poller.after_fork,
        lambda: next(iter(poller)),
    ):
        with pytest.raises(PermissionError, match="poller of a loop"):
            only_the_loops()
    loop.close()
    with pytest.raises(ValueError, match="closed"):
        poller.post(1)


class Recorder:
    """Queues nothing and answers nothing: keeps the names of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_open(self, connection: Connection) -> None:
        self.calls.append(("open", connection.token))

    def on_data(self, connection: Connection, data: bytes) -> None:
        self.calls.append(("data", data))
        connection.write(data)

    def on_stop(self, connection: Connection) -> None:
        self.calls.append(("stop", connection.is_stopping))
        connection.write(b"goodbye")
        connection.close()

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        self.calls.append(("close", error))


def test_a_stop_drains(engine: str) -> None:
    recorder = Recorder()
    with Served(engine, recorder) as served, connect(served.address) as client:
        assert ask(client, b"hello") == b"hello"
        served.loop.stop(LONG)
        assert read_all(client) == b"goodbye"
        client.close()
        served.join()
    assert recorder.calls == [("open", None), ("data", b"hello"), ("stop", True), ("close", None)]


def test_a_stop_pulled(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        pulled(loop, omnipoll.ACCEPTED)
        loop.stop()
        pulled(loop, omnipoll.STOPPING).connection.close()
        client.close()
        assert pulled(loop, omnipoll.CLOSED).error is None
    assert loop.wait() == []
    with pytest.raises(ValueError, match="stopped"):
        loop.listen(ADDRESS)


class ToTheOther(Recorder):
    """Writes what it gets to all other connections, and asks whether that was done at once."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Connection] = []

    def on_open(self, connection: Connection) -> None:
        self.all.append(connection)

    def on_data(self, connection: Connection, data: bytes) -> None:
        for other in self.all:
            if other is not connection:
                assert other.write(data) == other.queued
                other.pause()
                assert other.is_paused
                other.resume()
                assert not other.is_paused
                other.set_idle_timeout(None)
                assert other.local == connection.local
                other.shutdown()
                with pytest.raises(BrokenPipeError):
                    other.write(b"after the end")


def test_connections_reach_each_other_at_once(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Served(engine, ToTheOther()) as served,
        connect(served.address) as one,
        connect(served.address) as two,
    ):
        while len(served.handler.all) < 2:
            pass
        one.sendall(b"hello")
        assert read_all(two) == b"hello"
    assert not caplog.records


def test_what_is_done_between_waits_is_done_at_once(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        connection = pulled(loop, omnipoll.ACCEPTED).connection
        big = bytes(64 << 10)  # Small ones the ring sends when the loop waits.
        assert connection.write(big) == connection.queued == 0
        assert receive(client, len(big)) == big
        connection.pause()
        assert connection.is_paused
        client.sendall(b"unread")
        assert loop.wait(0.02) == []
        connection.resume()
        assert pulled(loop, omnipoll.DATA).data == b"unread"
        connection.set_timer(0.001)
        assert pulled(loop, omnipoll.CONN_TIMER).connection is connection
        connection.post(7)
        assert pulled(loop, omnipoll.CONN_POST).value == 7
        in_thread(lambda: connection.write(b"from a thread"))()
        loop.wait(0.02)
        assert client.recv(100).endswith(b"from a thread")
        with pytest.raises(PermissionError, match="its own thread"):
            in_thread(lambda: connection.queued)()


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


class Reenter(Recorder):
    def on_open(self, connection: Connection) -> None:
        loop = connection.loop
        for call in (loop.run, loop.run_once, loop.wait, lambda: loop.listen(ADDRESS)):
            with pytest.raises(RuntimeError, match="not in its calls"):
                call()
        self.calls.append(("refused", None))
        loop.close()
        assert loop.closed

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        assert error is not None
        self.calls.append(("close", error.errno))


def test_in_its_own_calls_a_loop_is_closed_when_they_return(engine: str) -> None:
    recorder = Reenter()
    loop = Loop(engine, handler=recorder)
    with connect(loop.listen(ADDRESS)):
        loop.run()
    assert recorder.calls == [("refused", None), ("stop", True), ("close", errno.ECANCELED)]
    with pytest.raises(ValueError, match="closed loop"):
        loop.run()
    loop.close()


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
        main = threading.get_ident()
        began = threading.Event()

        def interrupt() -> None:
            began.wait(LONG)
            while not interrupted:
                signal.pthread_kill(main, signal.SIGINT)
                began.wait(0)

        interrupted: list[int] = []

        def handle(number: int, _: object) -> None:
            interrupted.append(number)
            if len(interrupted) == 1:  # Another may be on its way.
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


def test_a_connect_that_fails_says_why(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = loop.connect(f"127.0.0.1:{port}")
    closed = pulled(loop, omnipoll.CLOSED)
    assert closed.connection is connection
    assert isinstance(closed.error, ConnectionRefusedError)
    assert f"127.0.0.1:{port}" in str(closed.error)
    assert not connection.is_open
    with pytest.raises(ValueError, match="address"):
        loop.connect("nonsense")
    with pytest.raises(OSError, match="not open yet"):
        _ = connection.peer


class Proxy:
    """Connects for each client, in a call of its, and relays."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def on_open(self, client: Connection) -> None:
        if client.is_outgoing:
            client.relay_to(client.token)
            client.token.relay_to(client)
            client.token.resume()
        else:
            client.pause()
            client.loop.connect(self.backend, self, token=client)

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        if error is not None and connection.is_outgoing and connection.token.is_open:
            connection.token.abort()


def test_connecting_in_a_call_and_relaying(engine: str) -> None:
    backend = Served(engine, Echo())
    with backend, Served(engine, Proxy(backend.address)) as proxy, connect(proxy.address) as client:
        assert ask(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""


def test_an_on_close_tells_of_a_connect_that_failed(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    with Served(engine, Proxy(nobody)) as proxy, pytest.raises(ConnectionResetError):
        connect(proxy.address).recv(1)


@pytest.mark.parametrize("face", ["run_once", "wait"])
def test_an_outer_loop_holds_it(engine: str, face: str) -> None:
    """It is readable for everything, and not once all is done."""
    seen = Everything(2)
    with Loop(engine, handler=seen) as loop:
        if engine in ("select", "poll"):
            with pytest.raises(OSError) as caught:
                loop.fileno()
            assert caught.value.errno == errno.ENOTSUP
            return
        with omnipoll.Poller() as outer:
            outer.add(loop, omnipoll.READ)
            loop.poller.timer_add(0.001, token="timer")
            in_thread(lambda: loop.poller.post("post", 2))()
            while len(seen.seen) < 2:
                assert outer.wait(LONG)
                if face == "run_once":
                    loop.run_once(0)
                    continue
                for event in loop.wait(0):
                    seen.on_event(loop, event)
            assert seen.seen == {"timer": 1, "post": 2}
            outer.remove(loop)


def test_datagrams(engine: str) -> None:
    with Loop(engine) as loop, Loop(engine) as asking:
        address = loop.listen("udp:127.0.0.1:0", token="udp")
        ours = asking.connect_datagrams(address)
        ours.send(b"question")
        (question,) = loop.wait(LONG)
        assert (question.kind, question.data, question.token) == (omnipoll.DATAGRAM, b"question", "udp")
        assert question.peer == ours.local
        assert question.socket is not None and question.peer is not None
        assert question.socket in loop.datagram_sockets
        question.socket.send_to(question.peer, b"answer", question.local)
        assert [event.data for event in asking.wait(LONG)] == [b"answer"]


def test_a_forked_child_is_told(engine: str) -> None:
    with Loop(engine, handler=Echo()) as loop:
        address = loop.listen(ADDRESS)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in (
                    loop.run,
                    loop.wait,
                    loop.stop,
                    lambda: loop.listen(ADDRESS),
                    lambda: loop.connect(address),
                ):
                    with pytest.raises(OSError) as caught:
                        call()
                    assert caught.value.errno == errno.EOWNERDEAD
                loop.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with connect(address) as client:
            client.sendall(b"still served")
            while not (events := [event.data for event in loop.wait(LONG) if event.data]):
                pass
            assert events == [b"still served"]


def test_many_connections(engine: str) -> None:
    count = 400
    with Served(engine, Echo()) as served, Loop(engine) as loop:
        messages = {loop.connect(served.address, token=number): b"%d" % number for number in range(count)}
        answers: dict[int, bytes] = {}
        while len(answers) < count:
            events = loop.wait(LONG)
            assert events
            for event in events:
                assert event.kind in (omnipoll.CONNECTED, omnipoll.DATA), event
                if event.kind == omnipoll.CONNECTED:
                    event.connection.write(messages[event.connection])
                else:
                    answers[event.token] = event.data
        assert answers == {number: b"%d" % number for number in range(count)}


@pytest.mark.parametrize("by", ["its thread", "another"])
def test_a_loop_that_is_dropped_with_connections(
    engine: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is called."""
    recorder = Recorder()
    calls = recorder.calls
    loop = Loop(engine, handler=recorder)
    with connect(loop.listen(ADDRESS)) as client:
        while not calls:
            loop.run_once(LONG)
        recorder.loop = loop  # type: ignore[attr-defined]
        gone = weakref.ref(loop)
        gc.disable()
        try:
            del loop, recorder
            assert gone() is not None
            if by == "another":
                in_thread(gc.collect)()
            else:
                gc.collect()
            assert gone() is None
        finally:
            gc.enable()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert calls == [("open", None)]
    assert not caplog.records


def test_a_loop_that_is_closed_tells_its_handlers(engine: str) -> None:
    recorder = Recorder()
    with Loop(engine, handler=recorder) as loop, connect(loop.listen(ADDRESS)):
        while not recorder.calls:
            loop.run_once(LONG)
        loop.close()
    (what, error) = recorder.calls[-1]
    assert (what, error.errno) == ("close", errno.ECANCELED)


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


def test_the_interpreter_ends_while_a_loop_runs(engine: str) -> None:
    """In a daemon thread, and one that was never closed."""
    program = f"""
import threading, omnipoll
class Echo:
    def on_data(self, connection, data):
        connection.write(data)
made = threading.Event()
def serve():
    loop = omnipoll.Loop({engine!r}, handler=Echo())
    loop.listen("{ADDRESS}")
    made.set()
    loop.run()
threading.Thread(target=serve, daemon=True).start()
made.wait()
left = omnipoll.Loop({engine!r}, handler=Echo())
left.connect(left.listen("{ADDRESS}"))
for _ in range(3):
    left.run_once(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONG)
