"""Bad input: a clear error, and nothing changed."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
from conftest import Pipe

import omnipoll
from omnipoll import EDGE, EXCLUSIVE, ONESHOT, PRIORITY, READ, WRITE, Poller


class Closed:
    def fileno(self) -> int:
        return -1


class Wrong:
    def fileno(self) -> str:
        return "3"


class Faulty:
    def fileno(self) -> int:
        raise RuntimeError("no number today")


NO_DESCRIPTORS = [
    ("3", TypeError),
    (3.0, TypeError),
    (None, TypeError),
    (object(), TypeError),
    (Wrong(), TypeError),
    (Faulty(), RuntimeError),
    (-1, ValueError),
    (Closed(), ValueError),
    (2**31, OverflowError),
    (-(2**70), OverflowError),
]


@pytest.mark.parametrize(("fd", "error"), NO_DESCRIPTORS)
def test_what_is_no_descriptor(poller: Poller, fd: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        poller.add(fd, READ)
    with pytest.raises(error):
        poller.modify(fd, READ)
    with pytest.raises(error):
        poller.remove(fd)
    with pytest.raises(error):
        poller.rearm(fd, READ)
    assert "0 registered" in repr(poller)


NO_INTERESTS = [
    (READ | 8, ValueError),
    (READ | 0x800, ValueError),
    (READ | 2**16, ValueError),
    (READ | 2**40, ValueError),
    (-1, ValueError),
    (PRIORITY | EXCLUSIVE, ValueError),
    (READ | ONESHOT | EXCLUSIVE, ValueError),
    ("READ", TypeError),
    (1.0, TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize(("interest", "error"), NO_INTERESTS)
def test_what_is_no_interest(poller: Poller, pipe: Pipe, interest: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        poller.add(pipe.writer, interest)
    assert "0 registered" in repr(poller)
    poller.add(pipe.writer, WRITE)
    with pytest.raises(error):
        poller.modify(pipe.writer, interest)
    with pytest.raises(error):
        poller.rearm(pipe.writer, interest)
    assert [event.ready for event in poller.wait(0)] == [WRITE]


NO_TIMEOUTS = [
    (math.nan, ValueError),
    (math.inf, OverflowError),
    (1e300, OverflowError),
    (10**400, OverflowError),
    (2**63, OverflowError),
    ("1", TypeError),
    (b"1", TypeError),
    ([], TypeError),
    (1j, TypeError),
]


@pytest.mark.parametrize(("timeout", "error"), NO_TIMEOUTS)
def test_what_is_no_timeout(timeout: Any, error: type[Exception]) -> None:
    for wait in (Poller().wait, omnipoll.DefaultSelector().select):
        with pytest.raises(error):
            wait(timeout)


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, -1e300])
def test_a_negative_timeout(timeout: float) -> None:
    with pytest.raises(ValueError, match="negative"):
        Poller().wait(timeout)
    assert omnipoll.DefaultSelector().select(timeout) == []


@pytest.mark.parametrize("timeout", [292 * 365 * 86400, 9.2e9])
def test_a_timeout_of_centuries(poller: Poller, pipe: Pipe, timeout: float) -> None:
    poller.add(pipe.writer, WRITE)
    assert len(poller.wait(timeout)) == 1


@pytest.mark.parametrize(
    ("max_events", "error"),
    [(0, ValueError), (-1, ValueError), (2**70, OverflowError), ("1", TypeError), (1.5, TypeError)],
)
def test_what_is_no_number_of_events(poller: Poller, max_events: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        poller.wait(0, max_events)


@pytest.mark.parametrize("max_events", [2**31, 2**62])
def test_room_for_more_than_there_is_memory(poller: Poller, pipe: Pipe, max_events: int) -> None:
    poller.add(pipe.writer, WRITE)
    assert len(poller.wait(0, max_events)) == 1


def test_arguments_by_position_and_by_name() -> None:
    poller, selector = Poller(), omnipoll.DefaultSelector()
    assert poller.wait(0, 1) == poller.wait(0, max_events=1) == poller.wait(max_events=1, timeout=0) == []
    assert selector.select(0) == selector.select(timeout=0) == []
    wait: Any = poller.wait
    select: Any = selector.select
    for call, words in (
        (lambda: wait(0, 1, 2), r"wait\(\) takes at most 2 arguments \(3 given\)"),
        (lambda: wait(0, timeout=0), r"wait\(\) got multiple values for argument 'timeout'"),
        (lambda: wait(0, limit=0), r"wait\(\) got an unexpected keyword argument 'limit'"),
        (lambda: select(0, 0), r"select\(\) takes at most 1 argument \(2 given\)"),
        (lambda: select(1, timeout=0), r"select\(\) got multiple values"),
        (lambda: Poller.wait(selector), "omnipoll.Poller"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=words):
            call()


@pytest.mark.parametrize("name", ["", "EPOLL", "kqueue2", "epoll\0", "é"])
def test_a_name_that_is_no_engines(name: str) -> None:
    with pytest.raises(ValueError, match="no engine"):
        Poller(name)


def test_wrong_types_for_a_new_poller() -> None:
    make: Any = Poller
    for arguments in ((3,), (b"epoll",), ("epoll", True)):
        with pytest.raises(TypeError):
            make(*arguments)
    with pytest.raises(TypeError):
        make(files_always_ready="yes")


def test_a_closed_poller(engine: str, pipe: Pipe) -> None:
    poller = Poller(engine)
    poller.add(pipe.writer, WRITE)
    poller.close()
    poller.close()
    assert poller.closed
    assert poller.engine == engine
    assert "closed" in repr(poller)
    for use in (
        lambda: poller.add(pipe.writer, WRITE),
        lambda: poller.modify(pipe.writer, WRITE),
        lambda: poller.remove(pipe.writer),
        lambda: poller.rearm(pipe.writer, WRITE),
        poller.wait,
        poller.wake,
        poller.after_fork,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    os.write(pipe.writer, b"still open")


@pytest.mark.parametrize(
    ("fd", "error"), [("3", ValueError), (None, ValueError), (-1, ValueError), (Closed(), ValueError)]
)
def test_a_selector_says_value_error_as_the_standard_ones(
    selector: omnipoll.EpollSelector, fd: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        selector.register(fd, omnipoll.EVENT_READ)
    with pytest.raises(error):
        selector.unregister(fd)
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("events", [0, 8, 0x800, EDGE, -1, READ | 2**40])
def test_a_selector_refuses_events(selector: omnipoll.EpollSelector, pipe: Pipe, events: int) -> None:
    with pytest.raises(ValueError):
        selector.register(pipe.writer, events)
    assert len(selector.get_map()) == 0
    key = selector.register(pipe.writer, omnipoll.EVENT_WRITE)
    with pytest.raises(ValueError):
        selector.modify(pipe.writer, events)
    assert selector.select(0) == [(key, omnipoll.EVENT_WRITE)]


def test_a_closed_selector(selector: omnipoll.EpollSelector, pipe: Pipe) -> None:
    selector.register(pipe.writer, omnipoll.EVENT_WRITE)
    selector.close()
    selector.close()
    with pytest.raises(ValueError, match="closed"):
        selector.register(pipe.writer, omnipoll.EVENT_WRITE)
    with pytest.raises(ValueError, match="closed"):
        selector.select()
    with pytest.raises(KeyError):
        selector.unregister(pipe.writer)
    with pytest.raises(RuntimeError):
        selector.get_key(pipe.writer)
