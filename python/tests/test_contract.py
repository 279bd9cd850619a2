"""The contract, from Python: what every engine means the same by."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Callable

import pytest
from conftest import ENGINES, LONG, SHORT, Pair, Pipe, ready

import omnipoll
from omnipoll import (
    EDGE,
    ERROR,
    EXCLUSIVE,
    HANGUP,
    INVALID,
    IO,
    ONESHOT,
    PRIORITY,
    READ,
    READ_CLOSED,
    WAKE,
    WRITE,
    Poller,
)

# ---- Triggers ------------------------------------------------------------------------------


def test_level_is_reported_as_long_as_it_holds(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.reader, READ)
    os.write(pipe.writer, bytes(2048))
    assert ready(poller) == {pipe.reader: READ}
    os.read(pipe.reader, 1024)
    assert ready(poller) == {pipe.reader: READ}
    pipe.drain()
    assert ready(poller, SHORT) == {}


def test_edge_is_reported_when_it_arises(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.reader, READ | EDGE)
    os.write(pipe.writer, bytes(2048))
    assert ready(poller) == {pipe.reader: READ}
    os.read(pipe.reader, 1024)
    assert ready(poller, SHORT) == {}
    pipe.drain()
    poller.rearm(pipe.reader, READ)
    os.write(pipe.writer, b"x")
    assert ready(poller) == {pipe.reader: READ}


@pytest.mark.parametrize("trigger", [ONESHOT, ONESHOT | EDGE])
def test_oneshot_is_reported_once_until_modify(poller: Poller, pipe: Pipe, trigger: int) -> None:
    poller.add(pipe.reader, READ | trigger)
    os.write(pipe.writer, b"x")
    assert ready(poller) == {pipe.reader: READ}
    os.write(pipe.writer, b"y")
    assert ready(poller, SHORT) == {}
    poller.modify(pipe.reader, READ | trigger)
    assert ready(poller) == {pipe.reader: READ}
    with pytest.raises(ValueError, match="modify"):
        poller.rearm(pipe.reader, READ)


def test_rearm_of_level_does_nothing(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    poller.rearm(pipe.writer, WRITE)
    assert ready(poller) == {pipe.writer: WRITE}


def test_exclusive_where_the_kernel_has_it(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Poller(engine) as one, Poller(engine) as two:
        if not one.capabilities & omnipoll.HAS_EXCLUSIVE:
            assert engine in ("select", "poll")
            with pytest.raises(ValueError):
                one.add(listener, READ | EXCLUSIVE)
            return
        assert engine in ("epoll", "io_uring")
        one.add(listener, READ | EXCLUSIVE)
        two.add(listener, READ | EXCLUSIVE)
        with pytest.raises(ValueError, match="EXCLUSIVE"):
            one.modify(listener, READ)
        with socket.create_connection(listener.getsockname()):
            assert ready(one, 0) or ready(two, 0)


# ---- Flags ---------------------------------------------------------------------------------


def test_urgent_data_is_priority(poller: Poller, connection: Pair) -> None:
    ours, theirs = connection
    poller.add(ours, READ | PRIORITY)
    theirs.send(b"!", socket.MSG_OOB)
    assert ready(poller)[ours] & PRIORITY
    assert ours.recv(1, socket.MSG_OOB) == b"!"


def test_hang_up_is_read_and_its_reason_where_the_engine_can_tell_them_apart(
    poller: Poller, pair: Pair
) -> None:
    ours, theirs = pair
    poller.add(ours, READ)
    theirs.close()
    flags = ready(poller)[ours]
    assert flags & READ
    reports_hangup = bool(poller.capabilities & omnipoll.REPORTS_HANGUP)
    reports_closed = bool(poller.capabilities & omnipoll.REPORTS_READ_CLOSED)
    assert bool(flags & HANGUP) == reports_hangup == (poller.engine != "select")
    assert bool(flags & READ_CLOSED) == reports_closed
    assert ours.recv(1) == b""


def test_half_close_is_read(poller: Poller, connection: Pair) -> None:
    ours, theirs = connection
    poller.add(ours, READ | WRITE)
    theirs.shutdown(socket.SHUT_WR)
    flags = 0
    while not flags & READ:
        flags = ready(poller)[ours]
    assert flags & WRITE
    assert not flags & HANGUP
    assert bool(flags & READ_CLOSED) == bool(poller.capabilities & omnipoll.REPORTS_READ_CLOSED)


def test_an_error_is_what_was_asked_for(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    os.close(pipe.reader)
    flags = ready(poller)[pipe.writer]
    assert flags & WRITE
    assert bool(flags & ERROR) == bool(poller.capabilities & omnipoll.REPORTS_HANGUP)


def test_closed_while_registered(poller: Poller, pipes: list[Pipe]) -> None:
    gone, other = pipes[:2]
    poller.add(gone.reader, READ, "gone")
    poller.add(other.writer, WRITE, "other")
    os.close(gone.reader)
    seen = [report for _ in range(4) for report in ready(poller).items()]
    assert seen.count(("other", WRITE)) >= 3
    if poller.engine in ("epoll", "io_uring"):
        assert set(seen) == {("other", WRITE)}  # The kernel doesn't report it.
        poller.remove(gone.reader)
    else:
        assert seen.count(("gone", INVALID)) == 1
        assert set(seen) == {("gone", INVALID), ("other", WRITE)}
        with pytest.raises(FileNotFoundError):
            poller.remove(gone.reader)


def test_the_next_life_of_a_number_has_its_own_events(poller: Poller, pipes: list[Pipe]) -> None:
    old, new, _ = pipes[:3]
    poller.add(old.reader, READ, "old")
    duplicate = os.dup(old.reader)
    os.write(old.writer, b"x")
    os.dup2(new.reader, old.reader)
    poller.add(old.reader, READ, "new")
    try:
        assert "old" not in ready(poller, SHORT)
        os.write(new.writer, b"x")
        assert ready(poller) == {"new": READ}
    finally:
        os.close(duplicate)


# ---- Errors, and what is left after them -----------------------------------------------------


def test_add_of_what_is_registered(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE, "first")
    with pytest.raises(FileExistsError, match="registered"):
        poller.add(pipe.writer, READ, "second")
    assert ready(poller) == {"first": WRITE}


@pytest.mark.parametrize(
    "change",
    [
        lambda poller, fd: poller.modify(fd, READ),
        lambda poller, fd: poller.remove(fd),
        lambda poller, fd: poller.rearm(fd, READ),
    ],
    ids=["modify", "remove", "rearm"],
)
def test_change_of_what_is_not_registered(
    poller: Poller, pipe: Pipe, change: Callable[[Poller, int], None]
) -> None:
    with pytest.raises(FileNotFoundError, match="not registered"):
        change(poller, pipe.reader)


def test_add_of_what_is_not_open(poller: Poller, pipe: Pipe) -> None:
    pipe.close()
    for fd in (pipe.reader, 2**31 - 1):
        with pytest.raises(OSError, match="not open") as error:
            poller.add(fd, READ)
        assert error.value.errno == 9
    assert "0 registered" in repr(poller)


def test_a_file_is_refused_unless_taken_as_ready(engine: str) -> None:
    with tempfile.TemporaryFile() as file:
        with Poller(engine) as poller, pytest.raises(PermissionError):
            poller.add(file, READ)
        with Poller(engine, files_always_ready=True) as poller:
            poller.add(file, READ | WRITE)
            assert ready(poller, 0) == ready(poller) == {file: READ | WRITE}


def test_a_refused_modify_changes_nothing(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE, "token")
    with pytest.raises(ValueError):
        poller.modify(pipe.writer, WRITE | 0x800, "other")
    assert ready(poller) == {"token": WRITE}


def test_no_direction_reports_hang_up_alone(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.add(ours, 0, "token")
    theirs.send(b"x")
    assert ready(poller, 0) == {}
    theirs.close()
    reports = poller.capabilities & omnipoll.REPORTS_HANGUP
    assert ready(poller, LONG if reports else 0) == ({"token": HANGUP} if reports else {})


def test_descriptors_above_1023(poller: Poller, pipe: Pipe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 6000)), hard))
    try:
        high = fcntl.fcntl(pipe.reader, fcntl.F_DUPFD_CLOEXEC, min(hard, 6000) - 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert high > 1023
    try:
        poller.add(high, READ)
        os.write(pipe.writer, b"x")
        assert ready(poller) == {high: READ}
        poller.remove(high)
    finally:
        os.close(high)


# ---- Tokens and events ---------------------------------------------------------------------


def test_the_token_is_any_object_and_the_descriptor_by_default(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    token = object()
    poller.add(ours, WRITE, token)
    poller.add(theirs, WRITE)
    assert ready(poller) == {token: WRITE, theirs: WRITE}
    poller.modify(ours, WRITE)
    poller.modify(theirs, WRITE, "new")
    assert ready(poller) == {token: WRITE, "new": WRITE}


def test_an_event_has_all_there_is_and_cannot_be_changed(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE, "name")
    poller.wake()
    events = {event.kind: event for event in poller.wait()}
    io, wake = events[IO], events[WAKE]
    assert (io.token, io.value, io.ready) == ("name", pipe.writer, WRITE)
    assert repr(io) == f"Event(kind=IO, token='name', value={pipe.writer}, ready=WRITE)"
    assert (wake.token, wake.value, wake.ready) == (None, 1, 0)
    assert repr(wake) == "Event(kind=WAKE, value=1)"
    for name in ("token", "value", "ready", "kind", "other"):
        with pytest.raises(AttributeError):
            setattr(io, name, 1)
    with pytest.raises(TypeError):
        omnipoll.Event()


def test_an_event_is_a_snapshot(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.add(ours, READ | WRITE)
    (before,) = poller.wait()
    theirs.send(b"x")
    while ready(poller)[ours] == WRITE:
        pass
    (after,) = poller.wait()
    assert (before.ready, after.ready) == (WRITE, READ | WRITE)


@pytest.mark.parametrize("max_events", [1, 3, 9])
def test_what_does_not_fit_comes_later(poller: Poller, pipes: list[Pipe], max_events: int) -> None:
    for pipe in pipes:
        poller.add(pipe.writer, WRITE)
    everyone = {pipe.writer for pipe in pipes}
    seen: set[int] = set()
    for _ in range(3 * len(pipes)):
        events = poller.wait(LONG, max_events)
        assert 1 <= len(events) <= max_events
        seen |= {event.token for event in events}
    assert seen == everyone
    assert {event.token for event in poller.wait(LONG, max_events=1000)} == everyone


def test_iteration_goes_on_until_the_poller_is_closed(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    seen = 0
    for event in poller:
        assert (event.token, event.ready) == (pipe.writer, WRITE)
        seen += 1
        if seen == 5:
            poller.close()
    assert seen == 5
    assert list(poller) == []


# ---- Time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1e-9, 0.0001, 0.0005, 0.0033, 0.021])
def test_timeouts_are_never_early(poller: Poller, pipe: Pipe, timeout: float) -> None:
    poller.add(pipe.reader, READ)
    for _ in range(5):
        begin = time.monotonic_ns()
        assert poller.wait(timeout) == []
        assert time.monotonic_ns() - begin >= timeout * 1e9


def test_zero_looks_and_returns(poller: Poller, pipe: Pipe) -> None:
    assert poller.wait(0) == poller.wait(0.0) == poller.wait(False) == []
    poller.add(pipe.writer, WRITE)
    assert ready(poller, 0) == {pipe.writer: WRITE}


def test_signals_do_not_stretch_or_end_a_timeout(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.reader, READ)
    calls: list[float] = []
    old = signal.signal(signal.SIGALRM, lambda *_: calls.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        begin = time.monotonic()
        assert poller.wait(0.1) == []
        end = time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert end - begin >= 0.1
    assert any(begin < call < end for call in calls)


# ---- Choice of the engine ------------------------------------------------------------------


def test_the_engine_by_name(engine: str) -> None:
    with Poller(engine) as poller:
        assert poller.engine == engine
        assert engine in repr(poller)


def test_the_engine_by_environment(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIPOLL_ENGINE", engine)
    assert Poller().engine == engine
    assert omnipoll.DefaultSelector().engine == engine
    assert Poller("epoll").engine == omnipoll.EpollSelector().engine == "epoll"
    monkeypatch.setenv("OMNIPOLL_ENGINE", "devpoll")
    with pytest.raises(ValueError, match="OMNIPOLL_ENGINE"):
        Poller()
    monkeypatch.delenv("OMNIPOLL_ENGINE")
    assert Poller().engine == omnipoll.DefaultSelector().engine == "epoll"


def test_an_engine_that_is_not_to_be_had() -> None:
    with pytest.raises(OSError, match="not available") as error:
        Poller("kqueue")
    assert error.value.errno == 38  # ENOSYS
    assert "kqueue" not in ENGINES
