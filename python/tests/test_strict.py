"""Strict mode, and what can be seen inside a poller."""

from __future__ import annotations

import errno
import gc
import os
import selectors
import signal
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ENGINES, SELECTORS, Pair, Pipe

import omnipoll
from omnipoll import EDGE, ONESHOT, READ, WAKE, WRITE, Finding, Poller, StrictWarning

LONG = 30  # To wait for what must come.
LIMIT = 0.1  # What strict mode takes for too long.


class Found(list[Finding]):
    """What was found, but for what a busy machine makes of any program: that it was held up."""

    def record(self, finding: Finding) -> None:
        if finding.kind != "BLOCKED_LOOP":
            self.append(finding)


@pytest.fixture
def found() -> Found:
    return Found()


@pytest.fixture
def strict(engine: str, found: Found) -> Iterator[Poller]:
    with Poller(engine, strict=True, on_finding=found.record) as poller:
        yield poller


def kinds(found: list[Finding]) -> list[str]:
    return [finding.kind for finding in found]


# ---- What is found -------------------------------------------------------------------------


def test_an_edge_that_blocks(strict: Poller, found: Found, pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(True)
    strict.add(ours, READ | EDGE, token="client")
    (finding,) = found
    assert (finding.kind, finding.fd, finding.token) == ("BLOCKING_EDGE", ours.fileno(), "client")
    assert finding.words.startswith(f"descriptor {ours.fileno()} (token 'client') is watched with EDGE")
    assert str(finding) == finding.words
    assert repr(finding).startswith(f"Finding(kind=\"BLOCKING_EDGE\", fd={ours.fileno()}, token='client', ")
    strict.remove(ours)
    ours.setblocking(False)
    strict.add(ours, READ | EDGE, token="client")
    strict.remove(ours)
    assert len(found) == 1


def test_what_is_left_undrained_is_reported_during_the_wait(engine: str, pair: Pair) -> None:
    """Nothing else would ever end this wait."""
    ours, theirs = pair
    found = Found()

    def record(finding: Finding) -> None:
        found.record(finding)
        if found:
            poller.wake()

    with Poller(engine, strict=True, on_finding=record) as poller:
        poller.add(ours, READ | EDGE, "client")
        theirs.send(b"x")
        assert [event.token for event in poller.wait(LONG)] == ["client"]
        assert [event.kind for event in poller.wait(LONG)] == [WAKE]
        assert [(finding.kind, finding.token) for finding in found] == [("UNDRAINED", "client")]
        poller.remove(ours)


def test_a_descriptor_closed_while_registered(strict: Poller, found: Found, pipe: Pipe) -> None:
    token = object()
    strict.add(pipe.reader, READ, token)
    os.close(pipe.reader)
    strict.wait(0)
    assert [(finding.kind, finding.fd) for finding in found] == [("CLOSED", pipe.reader)]
    assert found[0].token is token


def test_a_busy_writer(strict: Poller, found: Found, pipe: Pipe) -> None:
    strict.add(pipe.writer, WRITE)
    for _ in range(1100):
        assert len(strict.wait(LONG)) == 1
    assert kinds(found) == ["BUSY_WRITER"]
    strict.remove(pipe.writer)


def test_a_blocked_loop(engine: str) -> None:
    found: list[Finding] = []
    with Poller(engine, strict=True, on_finding=found.append) as poller:
        poller.wake()
        poller.wait(LONG)
        end = time.monotonic() + 1.5 * LIMIT
        while time.monotonic() < end:
            pass
        poller.wait(0)
        (finding,) = found
        assert (finding.kind, finding.fd, finding.token) == ("BLOCKED_LOOP", None, None)
        longest = poller.stats().longest_dispatch
    assert longest is not None
    assert longest >= 1.5 * LIMIT


@pytest.mark.parametrize("how", ["close", "drop"])
def test_what_is_left_registered(engine: str, found: Found, pipe: Pipe, how: str) -> None:
    poller = Poller(engine, strict=True, on_finding=found.record)
    poller.add(pipe.writer, WRITE, "left")
    if how == "close":
        poller.close()
    else:
        del poller
    assert [(finding.kind, finding.token) for finding in found] == [("LEAKED", "left")]


def test_a_forked_child(strict: Poller, found: Found, pipe: Pipe) -> None:
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            try:
                strict.add(pipe.writer, WRITE)
            except OSError as error:
                status = 0 if kinds(found) == ["FORKED_CHILD"] and error.errno == errno.EOWNERDEAD else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert found == []


def test_correct_code_is_met_with_silence(strict: Poller, found: Found, pair: Pair, pipe: Pipe) -> None:
    ours, theirs = pair
    strict.add(ours, READ | EDGE, "edge")
    strict.add(pipe.reader, READ | ONESHOT, "oneshot")
    timer = strict.timer_add(0, 0.001)
    for _ in range(50):
        theirs.send(b"x")
        os.write(pipe.writer, b"x")
        seen: set[object] = set()
        while not {"edge", "oneshot"} <= seen:
            for event in strict.wait(LONG):
                seen.add(event.token)
                if event.token == "edge":
                    with pytest.raises(BlockingIOError):
                        while ours.recv(100):
                            pass
                    strict.rearm(ours, READ)
                elif event.token == "oneshot":
                    pipe.drain()
        strict.modify(pipe.reader, READ | ONESHOT)
    strict.timer_cancel(timer)
    strict.remove(ours)
    strict.remove(pipe.reader)
    strict.close()
    assert found == []


# ---- What it is reported to ----------------------------------------------------------------


def test_without_a_callable_it_is_a_warning(engine: str, pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(True)
    with Poller(engine, strict=True) as poller:
        with pytest.warns(StrictWarning, match=r"\(token 'client'\) .* set O_NONBLOCK") as caught:
            poller.add(ours, READ | EDGE, "client")
        assert caught[0].filename == __file__
        poller.remove(ours)


def test_the_environment_makes_strict(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    ours.setblocking(True)
    monkeypatch.setenv("OMNIPOLL_STRICT", "1")
    with omnipoll.DefaultSelector() as selector:
        with pytest.warns(StrictWarning, match="O_NONBLOCK"):
            selector.register(ours, selectors.EVENT_READ | omnipoll.EVENT_EDGE, "data")
        selector.unregister(ours)
    found: list[Finding] = []
    with Poller(on_finding=found.append) as poller:
        poller.add(ours, READ | EDGE)
        poller.remove(ours)
    assert kinds(found) == ["BLOCKING_EDGE"]


def test_a_callable_without_strict(engine: str) -> None:
    if "OMNIPOLL_STRICT" not in os.environ:
        with pytest.raises(ValueError, match="strict"):
            Poller(engine, on_finding=print)


def test_it_may_use_the_poller(engine: str, pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(True)

    def mend(finding: Finding) -> None:
        poller.remove(finding.token)
        finding.token.setblocking(False)
        poller.add(finding.token, WRITE | EDGE, "mended")

    with Poller(engine, strict=True, on_finding=mend) as poller:
        poller.add(ours, WRITE | EDGE)
        assert [event.token for event in poller.wait(LONG)] == ["mended"]
        poller.remove(ours)


def test_its_exception_reaches_no_caller(engine: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    ours.setblocking(True)
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: raised.append((it.exc_type, it.object)))

    def fail(finding: Finding) -> None:
        raise LookupError(finding.words)

    with Poller(engine, strict=True, on_finding=fail) as poller:
        poller.add(ours, WRITE | EDGE)
        assert raised == [(LookupError, fail)]
        assert [event.token for event in poller.wait(LONG)] == [ours]
        poller.remove(ours)


def test_what_ends_a_program_comes_out_of_the_call(engine: str, pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(True)

    def end(finding: Finding) -> None:
        raise KeyboardInterrupt

    with Poller(engine, strict=True, on_finding=end) as poller:
        with pytest.raises(KeyboardInterrupt):
            poller.add(ours, WRITE | EDGE)
        poller.remove(ours)
        assert poller.wait(0) == []


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_comes_out_of_the_call(
    engine: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    ours.setblocking(True)
    monkeypatch.setenv("OMNIPOLL_STRICT", "1")
    with Poller(engine) as poller:
        with pytest.raises(StrictWarning, match="EDGE"):
            poller.add(ours, WRITE | EDGE)
        poller.remove(ours)
    with SELECTORS[ENGINES.index(engine)]() as selector:
        with pytest.raises(StrictWarning, match="EDGE"):
            selector.register(ours, WRITE | EDGE)
        assert not selector.get_map()
        assert selector.select(0) == []
    poller = Poller(engine)
    poller.add(ours, WRITE)
    with pytest.raises(StrictWarning, match="registered"):
        poller.close()
    assert poller.closed


@pytest.mark.filterwarnings("error", "ignore:.*kept a thread from its next wait")
def test_a_warning_that_is_an_error_ends_a_wait(engine: str, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    with Poller(engine, strict=True) as poller:
        poller.add(ours, READ | EDGE)
        assert len(poller.wait(LONG)) == 1
        with pytest.raises(StrictWarning, match="EDGE"):
            poller.wait()
        poller.remove(ours)


def test_a_callable_in_a_cycle_is_collected(engine: str) -> None:
    class Owner:
        def __init__(self) -> None:
            self.poller = Poller(engine, strict=True, on_finding=self.record)

        def record(self, finding: Finding) -> None:
            pass

    owner = Owner()
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


# ---- See inside ----------------------------------------------------------------------------


def test_stats(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    timers = [poller.timer_add(60), poller.timer_add_at(time.time() + 60)]
    poller.signal_add(signal.SIGUSR2)
    poller.post("first")
    before = poller.stats()
    assert (before.registrations, before.timers, before.signals, before.children) == (1, 2, 1, 0)
    assert (before.posts, before.waits, before.io_events, before.post_events) == (1, 0, 0, 0)
    seen: set[object] = set()
    waits = 0
    while len(seen) < 2:
        seen |= {event.token for event in poller.wait(LONG)}
        waits += 1
    for timer in timers:
        poller.timer_cancel(timer)
    poller.signal_remove(signal.SIGUSR2)
    poller.remove(pipe.writer)
    poller.wake()
    poller.wait(LONG)
    after = poller.stats()
    assert (after.registrations, after.timers, after.signals, after.posts) == (0, 0, 0, 0)
    assert (after.waits, after.wake_events, after.post_events) == (waits + 1, 1, 1)
    assert 1 <= after.io_events <= waits
    assert after.system_calls >= 2
    assert (after.timer_events, after.signal_events, after.child_events) == (0, 0, 0)
    assert after.longest_dispatch is None
    assert repr(after).startswith("Stats { registrations: 0, ")


def test_dump(strict: Poller, pipe: Pipe) -> None:
    with socket.socket() as listener:
        strict.add(pipe.writer, WRITE | ONESHOT, "pipe")
        strict.add(listener, READ, listener)
        assert [event.token for event in strict.wait(LONG, 1)] == ["pipe"]
        by_token = {one.token: one for one in strict.dump()}
        assert set(by_token) == {"pipe", listener}
        ours, other = by_token["pipe"], by_token[listener]
        assert (ours.fd, ours.interest, ours.armed) == (pipe.writer, WRITE | ONESHOT, 0)
        assert (other.fd, other.interest, other.armed) == (listener.fileno(), READ, READ)
        assert ours.what.startswith("pipe:[")
        assert other.what.startswith("socket:[")
        assert ours.age is not None
        assert ours.age >= 0
        assert ours.last_event is not None
        assert ours.last_event[0] == WRITE
        assert other.last_event is None
        line = f"{ours.fd} {ours.what} token 'pipe' WRITE|ONESHOT disarmed age "
        assert str(ours).startswith(line)
        assert str(ours).endswith("s ago")
        assert repr(ours) == f"<omnipoll.Registered {ours}>"
        strict.remove(pipe.writer)
        strict.remove(listener)
    assert strict.dump() == []


def test_without_strict_a_dump_has_no_history(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)
    poller.wait(LONG)
    (one,) = poller.dump()
    assert (one.age, one.last_event) == (None, None)
    assert str(one) == f"{pipe.writer} {one.what} token {pipe.writer} WRITE armed WRITE"


def test_a_closed_poller_has_nothing_to_show(poller: Poller) -> None:
    poller.close()
    for look in (poller.stats, poller.dump):
        with pytest.raises(ValueError, match="closed"):
            look()


def test_an_epoll_selector_can_be_watched(pipe: Pipe) -> None:
    with omnipoll.EpollSelector() as inner, selectors.DefaultSelector() as outer:
        inner.register(pipe.reader, selectors.EVENT_READ)
        outer.register(inner, selectors.EVENT_READ)  # It has a fileno().
        assert outer.select(0) == []
        os.write(pipe.writer, b"x")
        ((key, _),) = outer.select(LONG)
        assert key.fileobj is inner
        assert key.fd == inner.fileno()
        outer.unregister(inner)
    with pytest.raises(ValueError, match="closed"):
        inner.fileno()
