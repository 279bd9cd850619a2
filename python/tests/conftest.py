"""What the tests share: engines, pollers, loops and servers on them, descriptors, what a wait reports."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

import pytest
from serving import SHARING, Serve

import omnipoll
from omnipoll import Event, Loop, Poller

SHORT = 0.02  # To wait for what must not come.
LONG = 30  # To wait for what must come.


def may_use_io_uring() -> bool:
    try:
        Poller("io_uring").close()
    except OSError as error:
        assert error.errno == errno.ENOSYS
        return False
    return True


IO_URING = may_use_io_uring()
ENGINES = ("select", "poll", "epoll") + (("io_uring",) if IO_URING else ())
SELECTORS = (omnipoll.SelectSelector, omnipoll.PollSelector, omnipoll.EpollSelector) + (
    (omnipoll.IoUringSelector,) if IO_URING else ()
)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def poller(engine: str) -> Iterator[Poller]:
    with Poller(engine) as poller:
        yield poller


@pytest.fixture
def loop(engine: str) -> Iterator[Loop]:
    with Loop(engine) as loop:
        yield loop


@pytest.fixture(params=SELECTORS)
def selector(request: pytest.FixtureRequest) -> Iterator[omnipoll.EpollSelector]:
    """One of each class; they share the interface that EpollSelector is annotated with."""
    with request.param() as selector:
        yield selector


class Pipe(NamedTuple):
    """Both ends don't block."""

    reader: int
    writer: int

    def drain(self) -> bytes:
        data = b""
        with suppress(BlockingIOError):
            while chunk := os.read(self.reader, 65536):
                data += chunk
        return data

    def close(self) -> None:
        for end in self:
            with suppress(OSError):
                os.close(end)


def make_pipe() -> Pipe:
    return Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = make_pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    pipes = [make_pipe() for _ in range(10)]
    yield pipes
    for pipe in pipes:
        pipe.close()


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Connected sockets that don't block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def connection() -> Iterator[Pair]:
    """Both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture(params=SHARING)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(model: str, engine: str) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(model, engine, stack)


def ready(poller: Poller, timeout: float = LONG) -> dict[object, int]:
    """What one wait reports: token -> what it is ready for."""
    return {event.token: event.ready for event in poller.wait(timeout)}


class Token:
    """Something to hold on to that can be referred to weakly."""


def tokens(poller: Poller, timeout: float = LONG) -> list[object]:
    return [event.token for event in poller.wait(timeout)]


def one(poller: Poller) -> Event:
    (event,) = poller.wait(LONG)
    return event


def stale(call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == errno.ESTALE
