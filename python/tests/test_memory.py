"""What is given back, and when."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import SELECTORS, Pair, Pipe

from omnipoll import EVENT_WRITE, INVALID, READ, WRITE, EpollSelector, Poller


class Token:
    """Something to hold on to; unlike `object()` it can be referred to weakly."""


@pytest.fixture
def token() -> Token:
    return Token()


def count(thing: object) -> int:
    return sys.getrefcount(thing)


def test_remove_lets_go_of_the_token(poller: Poller, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller.add(pipe.writer, WRITE, token)
    events = poller.wait()
    assert events[0].token is token
    poller.remove(pipe.writer)
    assert count(token) == before + 1  # The event's.
    del events
    assert count(token) == before


def test_close_lets_go_of_the_tokens(engine: str, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller = Poller(engine)
    poller.add(pipe.writer, WRITE, token)
    poller.wait()
    poller.close()
    assert count(token) == before


def test_dropping_the_poller_lets_go_of_the_tokens(engine: str, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller = Poller(engine)
    poller.add(pipe.writer, WRITE, token)
    poller.wait()
    del poller
    assert count(token) == before


def test_modify_lets_go_of_the_old_token(poller: Poller, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller.add(pipe.writer, WRITE, token)
    poller.wait()
    poller.modify(pipe.writer, WRITE, "new")
    assert count(token) == before


def test_a_refused_add_lets_go_of_the_token(poller: Poller, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller.add(pipe.writer, WRITE, "first")
    for _ in range(10):
        with pytest.raises(FileExistsError):
            poller.add(pipe.writer, WRITE, token)
    assert count(token) == before


def test_invalid_lets_go_of_the_token(poller: Poller, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    poller.add(pipe.reader, READ, token)
    os.close(pipe.reader)
    if poller.engine in ("epoll", "io_uring"):
        assert poller.wait(0) == []  # The kernel doesn't report it.
        poller.remove(pipe.reader)
    else:
        assert [event.ready for event in poller.wait()] == [INVALID]
    assert count(token) == before


def test_an_event_of_other_readiness_replaces_the_last(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    token = Token()
    before = count(token)
    poller.add(ours, READ | WRITE, token)
    for _ in range(10):
        while poller.wait()[0].ready != WRITE:
            pass
        theirs.send(b"x")
        while poller.wait()[0].ready != READ | WRITE:
            pass
        ours.recv(1)
    assert count(token) == before + 2  # The registration's and its last event's.


def test_the_same_readiness_is_the_same_event(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    (first,), (second,) = poller.wait(), poller.wait()
    assert first is second


def test_a_poller_in_a_cycle_is_collected(engine: str, pipe: Pipe) -> None:
    poller = Poller(engine)
    poller.add(pipe.writer, WRITE, token=poller)
    events: list[Any] = poller.wait()
    reference = weakref.ref(poller)
    del poller, events
    gc.collect()
    assert reference() is None


def test_an_iterator_in_a_cycle_is_collected(engine: str, pipe: Pipe) -> None:
    poller = Poller(engine)
    token: Any = Token()
    poller.add(pipe.writer, WRITE, token)
    token.iterator = iter(poller)
    next(token.iterator)
    reference = weakref.ref(poller)
    del poller, token
    gc.collect()
    assert reference() is None


def test_a_selector_in_a_cycle_is_collected(pipe: Pipe) -> None:
    for make in SELECTORS:
        selector = make()
        selector.register(pipe.writer, EVENT_WRITE, data=selector)
        selector.select()
        reference = weakref.ref(selector)
        del selector
        gc.collect()
        assert reference() is None


def test_unregister_lets_go_of_the_data(selector: EpollSelector, pipe: Pipe, token: Token) -> None:
    before = count(token)
    selector.register(pipe.writer, EVENT_WRITE, token)
    selector.select()
    selector.modify(pipe.writer, EVENT_WRITE, token)
    selector.select()
    selector.unregister(pipe.writer)
    assert count(token) == before


def test_a_finalizer_may_come_back(poller: Poller, pipes: list[Pipe]) -> None:
    """It runs in the middle of remove() and changes the poller."""
    first, second = pipes[:2]

    class Last:
        def __del__(self) -> None:
            poller.add(second.writer, WRITE, "last words")

    poller.add(first.writer, WRITE, Last())
    poller.remove(first.writer)
    assert [event.token for event in poller.wait()] == ["last words"]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closing_closes_what_was_opened(engine: str, pipe: Pipe) -> None:
    before = open_descriptors()
    pollers = [Poller(engine) for _ in range(10)]
    for poller in pollers:
        poller.add(pipe.writer, WRITE)
        poller.wait()
        poller.close()
    assert open_descriptors() == before


def test_many_pollers_with_things_registered(engine: str, pipe: Pipe) -> None:
    before = open_descriptors()
    for _ in range(2000):
        poller = Poller(engine)
        poller.add(pipe.writer, WRITE, pipe)
        assert len(poller.wait()) == 1
    del poller
    assert open_descriptors() == before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_registering_again_and_again_takes_no_more_room(poller: Poller, pipe: Pipe) -> None:
    token = Token()
    before = count(token)
    rounds = 200_000
    for number in range(rounds + 1000):
        if number == 1000:
            begin = resident_bytes()
        poller.add(pipe.writer, WRITE, token)
        poller.remove(pipe.writer)
    assert resident_bytes() - begin < 8 * rounds  # Not as much as a pointer for each.
    assert count(token) == before
    assert "0 registered" in repr(poller)
