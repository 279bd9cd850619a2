"""Libraries with descriptors of their own on an omnipoll.Loop, without asyncio: pyzmq, pycurl, psycopg."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Generator, Iterator
from typing import Any, Callable

import pytest
from conftest import HOST, LIMIT, free_port

import omnipoll

Ready = Callable[[int], None]  # is called with the flags of a descriptor, or with 0 when it is time


@pytest.fixture(params=("select", "poll", "epoll", "io_uring"))
def loop(request: pytest.FixtureRequest) -> Iterator[omnipoll.Loop]:
    try:
        loop = omnipoll.Loop(request.param)
    except OSError as error:
        pytest.skip(str(error))
    with loop:
        yield loop


def run(loop: omnipoll.Loop, is_over: Callable[[], bool]) -> None:
    while not is_over():
        events = loop.wait(LIMIT / 2)
        assert events, "nothing happens any more"
        for event in events:
            event.token(event.ready if event.kind == omnipoll.IO else 0)


def test_pyzmq(loop: omnipoll.Loop) -> None:
    """Its descriptor says that something has changed, once; EVENTS says what."""
    zmq = pytest.importorskip("zmq")
    received = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.setsockopt(zmq.RCVTIMEO, 0)
        push.connect(f"tcp://{HOST}:{pull.bind_to_random_port(f'tcp://{HOST}')}")

        def ready(_: int = 0) -> None:
            while pull.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                received.append(pull.recv())

        sender = threading.Thread(target=lambda: [push.send(b"%d" % n) for n in range(2000)])
        loop.poller.add(pull.getsockopt(zmq.FD), omnipoll.READ, ready)
        sender.start()
        ready()  # what was there before it was watched is not announced
        run(loop, lambda: len(received) == 2000)
        sender.join(LIMIT / 2)
        loop.poller.remove(pull.getsockopt(zmq.FD))
    assert received == [b"%d" % n for n in range(2000)]


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(bytes(50_000))
        self.close_connection = self.path == "/half"
        if self.path != "/half":
            self.wfile.write(bytes(50_000))

    def log_message(self, format: str, *_: Any) -> None:
        pass


class Site(http.server.ThreadingHTTPServer):
    request_queue_size = 1000


@pytest.fixture
def site() -> Iterator[str]:
    with Site((HOST, 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


def test_pycurl(loop: omnipoll.Loop, site: str) -> None:
    """Its multi socket interface: libcurl says what to watch, and until when."""
    pycurl = pytest.importorskip("pycurl")
    watched: set[int] = set()
    multi = pycurl.CurlMulti()
    bodies: dict[Any, io.BytesIO] = {}
    results: list[tuple[int, int]] = []  # libcurl's error, and how many bytes came
    timers: list[int] = []

    def ready(flags: int, fd: int = pycurl.SOCKET_TIMEOUT) -> None:
        reads = pycurl.CSELECT_IN if flags & ~omnipoll.WRITE else 0
        multi.socket_action(fd, reads | (pycurl.CSELECT_OUT if flags & omnipoll.WRITE else 0))
        _, done, failed = multi.info_read()
        results.extend((0, len(bodies[easy].getvalue())) for easy in done)
        results.extend((error, len(bodies[easy].getvalue())) for easy, error, _ in failed)

    def on_socket(what: int, fd: int, _multi: Any, _data: Any) -> None:
        reads = omnipoll.READ if what in (pycurl.POLL_IN, pycurl.POLL_INOUT) else 0
        writes = omnipoll.WRITE if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT) else 0
        if not reads | writes:
            loop.poller.remove(fd)
            watched.remove(fd)
            return
        (loop.poller.modify if fd in watched else loop.poller.add)(
            fd, reads | writes, lambda flags: ready(flags, fd)
        )
        watched.add(fd)

    def on_timer(milliseconds: int) -> None:
        if timers:
            loop.poller.timer_set(timers[0], max(milliseconds, 0) / 1000)
        else:
            timers.append(loop.poller.timer_add(max(milliseconds, 0) / 1000, token=ready))

    multi.setopt(pycurl.M_SOCKETFUNCTION, on_socket)
    multi.setopt(pycurl.M_TIMERFUNCTION, on_timer)
    for number in range(60):
        transfer = pycurl.Curl()
        bodies[transfer] = io.BytesIO()
        transfer.setopt(pycurl.URL, f"{site}/{'half' if number % 3 == 0 else 'all'}")
        transfer.setopt(pycurl.WRITEDATA, bodies[transfer])
        multi.add_handle(transfer)
    run(loop, lambda: len(results) == 60)
    multi.close()
    assert watched == set()
    assert sorted(results) == [(0, 100_000)] * 40 + [(pycurl.E_PARTIAL_FILE, 50_000)] * 20


class Task:
    """A generator of psycopg's, which yields what to wait for, and wants to know what is ready. While it
    connects, the socket may be another after each step, and have the same number: it is removed before a step
    and added after it."""

    def __init__(
        self,
        loop: omnipoll.Loop,
        generator: Generator[Any, Any, Any],
        done: Callable[[Any], None],
        socket: int = -1,
    ) -> None:
        self.loop, self.generator, self.done, self.socket = loop, generator, done, socket
        self.step(None)

    def step(self, ready: int | None) -> None:
        try:
            wanted = self.generator.send(ready)
        except StopIteration as end:
            self.done(end.value)
            return
        self.socket, wait = wanted if isinstance(wanted, tuple) else (self.socket, wanted)
        interest = (omnipoll.READ if wait & 1 else 0) | (omnipoll.WRITE if wait & 2 else 0)
        self.loop.poller.add(self.socket, interest, self.ready)

    def ready(self, flags: int) -> None:
        self.loop.poller.remove(self.socket)
        self.step((1 if flags & ~omnipoll.WRITE else 0) | (2 if flags & omnipoll.WRITE else 0))


def test_psycopg(loop: omnipoll.Loop, database: int) -> None:
    """Its generators, on two hosts, the first of which is not there, over TLS."""
    pytest.importorskip("psycopg")
    from psycopg import generators

    results: list[bytes] = []

    def connected(connection: Any) -> None:
        def answered(answer: Any) -> None:
            results.append(answer[0].get_value(0, 0))
            connection.finish()

        connection.send_query(b"SELECT count(*) FROM generate_series(1, 10000)")
        Task(loop, generators.execute(connection), answered, connection.socket)

    where = f"host={HOST},{HOST} port={free_port()},{database} user=tester dbname=postgres sslmode=require"
    for _ in range(10):
        Task(loop, generators.connect(where), connected)
    run(loop, lambda: len(results) == 10)
    assert results == [b"10000"] * 10
