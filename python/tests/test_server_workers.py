"""The start and the end of each worker of a server, and what it waits for besides its clients."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from serving import FORKING, LONG, SHARING, Echo, Serve, connect, end, last_words, program, receive

import omnipoll
from omnipoll import Connection, Event, Server, Worker


@pytest.fixture(params=FORKING)
def forking(request: pytest.FixtureRequest) -> str:
    return str(request.param)


if TYPE_CHECKING:

    class Named(Worker):
        name: str


class Workers(Echo):
    """Echoes, and queues the calls that are the workers' own, with their threads."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def on_worker_start(self, worker: Named) -> None:
        worker.name = f"worker {worker.number}"
        self.calls.put(("start", worker, threading.get_ident()))

    def on_worker_end(self, worker: Named) -> None:
        assert worker.name == f"worker {worker.number}"
        self.calls.put(("end", worker, threading.get_ident()))

    def all(self) -> list[tuple[Any, ...]]:
        return [self.calls.get_nowait() for _ in range(self.calls.qsize())]


def test_each_worker_starts_and_ends_in_its_thread(serve: Serve) -> None:
    handler = Workers()
    server = serve(handler)
    for _ in range(2):
        with connect(server) as client:
            client.sendall(b"hello")
            assert receive(client, 5) == b"hello"
    serve.end()
    calls = handler.all()
    starts = [call[1:] for call in calls if call[0] == "start"]
    ends = [call[1:] for call in calls if call[0] == "end"]
    assert len(starts) == (1 if serve.model == "reactor" else 2)
    assert all(start in ends for start in starts)
    assert len(ends) == len(starts)
    numbers = {worker.number for worker, _ in starts}
    assert numbers == ({0, 1} if serve.model == "cores" else {0})
    worker = starts[0][0]
    assert repr(worker) == f"<omnipoll.Worker {worker.number}>"
    with pytest.raises(ValueError, match="closed"):
        worker.poller.timer_add(1, token="late")


class Failing(Echo):
    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def on_worker_start(self, worker: Worker) -> None:
        raise self.failure


@pytest.mark.parametrize(
    "failure", [LookupError("not here"), PermissionError(errno.EACCES, "no"), SystemExit(3)]
)
@pytest.mark.parametrize("model", SHARING)
def test_a_start_that_fails_comes_out_of_run(model: str, engine: str, failure: BaseException) -> None:
    server = Server(Failing(failure), "127.0.0.1:0", model=model, engine=engine, workers=2)
    # Under "thread" the first client starts a worker.
    with connect(server), pytest.raises(type(failure)) as raised:
        server.run()
    assert raised.value is failure


FAILING = """
import logging
logging.basicConfig(format="%(message)s")

class Handler(Echo):
    def on_worker_start(self, worker):
        raise FAILURE
    def on_worker_end(self, worker):
        print("ended")

try:
    serve(Handler())
except OSError as error:
    print(error.errno, error.strerror, flush=True)
"""


@pytest.mark.parametrize(
    ("failure", "number"),
    [("PermissionError(13, 'no')", errno.EACCES), ("LookupError('not here')", errno.ENOTRECOVERABLE)],
)
def test_a_start_that_fails_in_a_child_ends_the_server(
    forking: str, engine: str, failure: str, number: int
) -> None:
    with contextlib.ExitStack() as stack:
        source = FAILING.replace("FAILURE", failure)
        process, address = stack.enter_context(program(source, forking, engine))
        if forking == "fork":  # The first client starts a worker.
            stack.enter_context(connect(address))
        said, complained = last_words(process)
    assert said == f"{number} a worker did not start: {os.strerror(number)}\n"
    assert "exception in on_worker_start" in complained
    assert failure.split("(")[0] in complained


class Waiting(Echo):
    """Its workers wait for all kinds of things."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[int, object, int]] = queue.Queue()
        self.pipes: list[tuple[int, int]] = []

    def on_worker_start(self, worker: Worker) -> None:
        worker.poller.timer_add(0.001, token="timer")
        worker.poller.post(["any object"], 7)
        self.pipes.append(os.pipe())
        os.write(self.pipes[-1][1], b"x")
        worker.poller.add(self.pipes[-1][0], omnipoll.READ, "pipe")

    def on_event(self, worker: Worker, event: Event) -> None:
        if event.token == "pipe":
            worker.poller.remove(event.value)
        self.seen.put((event.kind, event.token, worker.number))


def test_a_worker_waits_for_timers_descriptors_and_posts(serve: Serve) -> None:
    handler = Waiting()
    server = serve(handler)
    with connect(server) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
        workers = 2 if serve.model == "cores" else 1
        seen = [handler.seen.get(timeout=LONG) for _ in range(3 * workers)]
        client.sendall(b"again")
        assert receive(client, 5) == b"again"
    for worker in range(workers):
        mine = [(kind, token) for kind, token, number in seen if number == worker]
        expected = [(omnipoll.TIMER, "timer"), (omnipoll.POST, ["any object"]), (omnipoll.IO, "pipe")]
        assert sorted(mine, key=repr) == sorted(expected, key=repr)
    assert handler.seen.empty()
    for pipe in handler.pipes:
        for fd in pipe:
            os.close(fd)


def test_the_poller_of_a_worker_is_waited_on_and_closed_by_its_loop_alone(serve: Serve) -> None:
    refused: queue.Queue[int | None] = queue.Queue()

    class Handler(Echo):
        def on_worker_start(self, worker: Worker) -> None:
            for call in (worker.poller.wait, worker.poller.close, worker.poller.after_fork):
                with pytest.raises(PermissionError) as error:
                    call()
                refused.put(error.value.errno)

    with connect(serve(Handler())) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
    assert [refused.get(timeout=LONG) for _ in range(3)] == [errno.EPERM] * 3


def test_a_process_has_its_own_poller(forking: str, engine: str) -> None:
    source = """
class Handler(Echo):
    connection = None
    def on_worker_start(self, worker):
        self.process = os.getpid()
        worker.poller.timer_add(0.001, token="timer")
    def on_event(self, worker, event):
        assert (event.token, os.getpid()) == ("timer", self.process)
        if self.connection is None:
            worker.poller.timer_add(0.001, token="timer")
        else:
            self.connection.write(b"timer")
    def on_open(self, connection):
        assert os.getpid() == self.process
        self.connection = connection
    def on_worker_end(self, worker):
        assert os.getpid() == self.process
        print("ended")
serve(Handler(), signals=True)
"""
    with program(source, forking, engine) as (process, address):
        with connect(address) as client:
            assert receive(client, 5) == b"timer"
        said, complained = end(process)
        assert said == "ended\n" * (1 if forking == "fork" else 2)
        assert complained == ""


def test_an_exception_at_the_end_or_for_an_event_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    events: queue.Queue[Event] = queue.Queue()

    class Handler(Echo):
        def on_worker_start(self, worker: Worker) -> None:
            worker.poller.post("token")

        def on_event(self, worker: Worker, event: Event) -> None:
            events.put(event)
            raise LookupError("for the event")

        def on_worker_end(self, worker: Worker) -> None:
            raise LookupError("at the end")

    with connect(serve(Handler())) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
        workers = 2 if serve.model == "cores" else 1
        for _ in range(workers):
            events.get(timeout=LONG)
    serve.end()
    said = [record.getMessage() for record in caplog.records]
    assert sorted(said) == ["exception in on_event"] * workers + ["exception in on_worker_end"] * workers


def test_an_event_that_is_lost_is_logged_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Handler(Echo):
        def on_worker_start(self, worker: Worker) -> None:
            worker.poller.post(1)
            worker.poller.post(2)

        def on_post(self, connection: Connection, value: int) -> None:
            connection.write(b"posted")

        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.post(0)

    with connect(serve(Handler())) as client:
        client.sendall(b"hello")
        assert receive(client, 6) == b"posted"
    serve.end()
    (said,) = {record.getMessage() for record in caplog.records}
    assert "the handler has none: an event is lost" in said
    assert len(caplog.records) == 1


def test_misspelt_methods_are_refused() -> None:
    class Handler(Echo):
        def on_worker_stop(self, worker: Worker) -> None: ...

    with pytest.raises(TypeError, match="on_worker_start"):
        Server(Handler(), "127.0.0.1:0")


def test_a_connection_says_which_worker_it_is_of(serve: Serve) -> None:
    class Handler(Workers):
        def on_open(self, connection: Connection) -> None:
            self.calls.put(("open", connection.worker, threading.get_ident()))

    handler = Handler()
    with connect(serve(handler)) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
    calls = handler.all()
    (opened,) = [call for call in calls if call[0] == "open"]
    assert any(call[0] == "start" and (call[1].number, call[2]) == opened[1:] for call in calls)


class Proxy(Echo):
    """Connects for each client, in a call of the worker's, and relays."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.loops: set[Any] = set()

    def on_open(self, connection: Connection) -> None:
        loop = connection.loop
        assert loop is connection.loop
        assert loop.number == connection.worker
        if connection.is_outgoing:
            client = connection.token
            client.relay_to(connection)
            connection.relay_to(client)
            client.resume()
        else:
            connection.pause()
            assert loop.connect(self.backend, token=connection).is_outgoing

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        if connection.is_outgoing and isinstance(error, ConnectionRefusedError):
            connection.token.abort()


def test_a_worker_connects(serve: Serve) -> None:
    backend = serve(Echo(), model="reactor")
    with connect(serve(Proxy(backend.addresses[0]))) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"


def test_a_connect_of_a_worker_fails(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = "{}:{}".format(*listener.getsockname())
    server = serve(Proxy(nobody))
    with pytest.raises(ConnectionResetError):
        connect(server).recv(1)


class Stopping(Echo):
    def on_data(self, connection: Connection, data: bytes) -> None:
        self.worker = connection.loop
        self.connection = connection
        connection.loop.stop(0)


def test_a_worker_stops_its_server(model: str, engine: str) -> None:
    handler = Stopping()
    server = Server(handler, "127.0.0.1:0", model=model, engine=engine)
    running = threading.Thread(target=server.run)
    running.start()
    with connect(server) as client:
        client.sendall(b"stop")
        running.join(LONG)
    assert not running.is_alive()
    with pytest.raises(PermissionError, match="call of the handler"):
        handler.worker.stop()
    with pytest.raises(PermissionError, match="call of the handler"):
        handler.worker.connect("127.0.0.1:1")
    with pytest.raises(OSError, match="gone"):
        _ = handler.connection.loop


def test_a_worker_connects_datagrams(serve: Serve) -> None:
    class Asking(Workers):
        def on_worker_start(self, worker: Named) -> None:
            super().on_worker_start(worker)
            worker.connect_datagrams(address).send(b"from %d" % worker.number)

        def on_datagram(self, datagram: omnipoll.Datagram, data: bytes) -> None:
            self.calls.put(("answer", data))

    handler = Asking()
    with socket.socket(type=socket.SOCK_DGRAM) as asked:
        asked.settimeout(LONG)
        asked.bind(("127.0.0.1", 0))
        address = "udp:{}:{}".format(*asked.getsockname())
        with connect(serve(handler)):  # Under "thread" a worker begins with its client.
            _, worker, _ = handler.calls.get(timeout=LONG)
            question, peer = asked.recvfrom(100)
            asked.sendto(question.upper(), peer)
            while (call := handler.calls.get(timeout=LONG))[0] != "answer":
                pass
            assert call[1] == question.upper()
            with pytest.raises(PermissionError, match="call of the handler"):
                worker.connect_datagrams(address)
