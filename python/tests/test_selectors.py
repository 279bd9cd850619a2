"""The selectors: what they add to the standard interface, and where they differ from it."""

from __future__ import annotations

import os
import selectors
import socket
import tempfile
import threading
import time

import pytest
from conftest import Pair, Pipe

import omnipoll
from omnipoll import (
    EVENT_EDGE,
    EVENT_EXCLUSIVE,
    EVENT_ONESHOT,
    EVENT_PRIORITY,
    EVENT_READ,
    EVENT_WRITE,
    EpollSelector,
)

SHORT = 0.02
LONG = 30


def test_it_is_one_of_the_standard_ones(selector: EpollSelector, pipe: Pipe) -> None:
    assert isinstance(selector, selectors.BaseSelector)
    assert (EVENT_READ, EVENT_WRITE) == (selectors.EVENT_READ, selectors.EVENT_WRITE)
    key = selector.register(pipe.writer, EVENT_WRITE, "data")
    assert type(key) is selectors.SelectorKey
    ((same, events),) = selector.select()
    assert same is key is selector.get_map()[pipe.writer]
    assert events == EVENT_WRITE


def test_every_key_is_reported_with_what_is_ready_of_it(selector: EpollSelector, pair: Pair) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_READ | EVENT_WRITE)
    assert selector.select(LONG) == [(key, EVENT_WRITE)]
    theirs.send(b"x")
    while selector.select(LONG) != [(key, EVENT_READ | EVENT_WRITE)]:
        pass
    key = selector.modify(ours, EVENT_READ, "new")
    assert selector.select(LONG) == [(key, EVENT_READ)]
    ours.recv(1)
    assert selector.select(0) == []


def test_new_data_comes_with_the_next_select(selector: EpollSelector, pipe: Pipe) -> None:
    old = selector.register(pipe.writer, EVENT_WRITE, "old")
    assert selector.select() == [(old, EVENT_WRITE)]
    new = selector.modify(pipe.writer, EVENT_WRITE, "new")
    ((key, _),) = selector.select()
    assert key is new
    assert key.data == "new"


def test_edge(selector: EpollSelector, pipe: Pipe) -> None:
    key = selector.register(pipe.reader, EVENT_READ | EVENT_EDGE)
    os.write(pipe.writer, bytes(2048))
    assert selector.select(LONG) == [(key, EVENT_READ)]
    os.read(pipe.reader, 1024)
    assert selector.select(SHORT) == []
    pipe.drain()
    selector.rearm(pipe.reader)
    os.write(pipe.writer, b"x")
    assert selector.select(LONG) == [(key, EVENT_READ)]
    assert selector.modify(pipe.reader, key.events) == key
    assert selector.select(LONG) == [(key, EVENT_READ)]
    with pytest.raises(KeyError):
        selector.rearm(pipe.writer)


def test_oneshot(selector: EpollSelector, pipe: Pipe) -> None:
    key = selector.register(pipe.writer, EVENT_WRITE | EVENT_ONESHOT)
    assert selector.select(LONG) == [(key, EVENT_WRITE)]
    assert selector.select(SHORT) == []
    assert selector.modify(pipe.writer, key.events, key.data) == key
    assert selector.select(LONG) == [(key, EVENT_WRITE)]
    with pytest.raises(ValueError):
        selector.rearm(pipe.writer)


def test_urgent_data(selector: EpollSelector, connection: Pair) -> None:
    ours, theirs = connection
    key = selector.register(ours, EVENT_PRIORITY)
    theirs.send(b"!", socket.MSG_OOB)
    assert selector.select(LONG) == [(key, EVENT_PRIORITY)]
    assert ours.recv(1, socket.MSG_OOB) == b"!"


def test_exclusive(selector: EpollSelector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if selector.engine in ("select", "poll"):
            with pytest.raises(ValueError):
                selector.register(listener, EVENT_READ | EVENT_EXCLUSIVE)
            assert len(selector.get_map()) == 0
            return
        selector.register(listener, EVENT_READ | EVENT_EXCLUSIVE)
        key = selector.modify(listener, EVENT_READ | EVENT_EXCLUSIVE, "new data")
        with socket.create_connection(listener.getsockname()):
            assert selector.select(LONG) == [(key, EVENT_READ)]
        with pytest.raises(ValueError, match="EXCLUSIVE"):
            selector.modify(listener, EVENT_READ)
        assert len(selector.get_map()) == 0  # As the standard ones do after a modify that failed.


def test_a_condition_that_is_no_direction_is_reported_as_all(selector: EpollSelector, pair: Pair) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_PRIORITY)
    theirs.close()
    # select's third set holds urgent data alone.
    expected = [] if selector.engine == "select" else [(key, EVENT_PRIORITY)]
    assert selector.select(SHORT) == expected


def test_a_modify_that_fails_unregisters(selector: EpollSelector, pipe: Pipe) -> None:
    selector.register(pipe.reader, EVENT_READ)
    os.close(pipe.reader)
    with pytest.raises(OSError):
        selector.modify(pipe.reader, EVENT_READ | EVENT_PRIORITY)
    assert len(selector.get_map()) == 0
    with pytest.raises(KeyError):
        selector.unregister(pipe.reader)


def test_closed_while_registered(selector: EpollSelector, pipe: Pipe) -> None:
    key = selector.register(pipe.reader, EVENT_READ)
    os.close(pipe.reader)
    seen = [report for _ in range(3) for report in selector.select(SHORT)]
    assert seen == ([] if selector.engine in ("epoll", "io_uring") else [(key, EVENT_READ)])
    assert selector.get_key(pipe.reader) == key
    assert selector.modify(pipe.reader, EVENT_READ, "new data").data == "new data"
    assert selector.unregister(pipe.reader).fd == pipe.reader
    assert selector.select(0) == []


def test_a_closed_number_is_registered_again(selector: EpollSelector, pipes: list[Pipe]) -> None:
    old, new = pipes[:2]
    selector.register(old.reader, EVENT_READ)
    os.dup2(new.reader, old.reader)
    with pytest.raises(KeyError):
        selector.register(old.reader, EVENT_READ)
    selector.unregister(old.reader)
    key = selector.register(old.reader, EVENT_READ)
    os.write(new.writer, b"x")
    assert selector.select(LONG) == [(key, EVENT_READ)]


def test_what_is_not_open_is_refused(selector: EpollSelector, pipe: Pipe) -> None:
    pipe.close()
    with pytest.raises(OSError, match="not open"):
        selector.register(pipe.reader, EVENT_READ)
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("make", [omnipoll.SelectSelector, omnipoll.PollSelector, omnipoll.EpollSelector])
def test_a_file_is_refused_unless_taken_as_ready(make: type[EpollSelector]) -> None:
    with tempfile.TemporaryFile() as file:
        with make() as selector:
            with pytest.raises(PermissionError):
                selector.register(file, EVENT_READ)
            assert len(selector.get_map()) == 0
        with make(files_always_ready=True) as selector:
            key = selector.register(file, EVENT_READ)
            assert selector.select() == [(key, EVENT_READ)]


@pytest.mark.parametrize("timeout", [0.0002, 0.0015])
def test_timeouts_below_a_millisecond_are_never_early(selector: EpollSelector, timeout: float) -> None:
    for _ in range(5):
        begin = time.monotonic_ns()
        assert selector.select(timeout) == []
        assert time.monotonic_ns() - begin >= timeout * 1e9


def test_a_thread_registers_while_another_waits(selector: EpollSelector, pipe: Pipe) -> None:
    seen: list[object] = []
    waiter = threading.Thread(target=lambda: seen.extend(selector.select(LONG)))
    waiter.start()
    key = selector.register(pipe.writer, EVENT_WRITE)
    waiter.join(LONG)
    assert seen == [(key, EVENT_WRITE)]


def test_closing_ends_the_select_under_way(selector: EpollSelector) -> None:
    ended: list[str] = []

    def wait() -> None:
        try:
            selector.select()
        except ValueError as error:
            ended.append(str(error))

    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    selector.close()
    for waiter in waiters:
        waiter.join(LONG)
    assert ended == ["I/O operation on a closed poller"] * 3


def test_fork(selector: EpollSelector, pipe: Pipe) -> None:
    key = selector.register(pipe.writer, EVENT_WRITE)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                selector.select(0)
            except OSError as error:
                assert error.errno == 130  # EOWNERDEAD
                selector.after_fork()
                assert selector.select(0) == [(key, EVENT_WRITE)]
                selector.unregister(pipe.writer)
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert selector.select(0) == [(key, EVENT_WRITE)]


def test_a_child_unregisters_before_it_says_that_it_was_forked(
    selector: EpollSelector, pipes: list[Pipe]
) -> None:
    keys = [selector.register(pipe.writer, EVENT_WRITE) for pipe in pipes]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert selector.unregister(pipes[0].writer) == keys[0]
            with pytest.raises(OSError, match="fork"):
                selector.modify(pipes[1].writer, EVENT_READ)
            assert list(selector.get_map().values()) == keys[1:]
            selector.after_fork()
            assert sorted(key.fd for key, _ in selector.select(LONG)) == [key.fd for key in keys[1:]]
            selector.register(pipes[0].writer, EVENT_WRITE)
            selector.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(selector.select(0)) == len(keys)


def test_the_map_is_the_standard_one(selector: EpollSelector, pipes: list[Pipe]) -> None:
    """Side by side: what the standard selector's map says, ours says."""
    standard = selectors.SelectSelector()
    for one in (standard, selector):
        for pipe in pipes[:3]:
            one.register(pipe.reader, EVENT_READ, pipe)
        one.unregister(pipes[1].reader)
    ours, theirs = selector.get_map(), standard.get_map()
    assert dict(ours) == dict(theirs)
    assert list(ours) == list(theirs)
    assert list(ours.values()) == list(theirs.values())
    assert (pipes[0].reader in ours) and (pipes[1].reader not in ours)
    assert ours.get(pipes[1].reader) is None
    with pytest.raises(KeyError):
        ours[pipes[1].reader]
    with pytest.raises(TypeError):
        ours[3] = None  # type: ignore[index]
    standard.close()
    selector.close()
    assert len(ours) == len(theirs) == 0
    assert selector.get_map() is standard.get_map() is None
