"""Signals during a wait: Ctrl-C ends it, other handlers run and it continues."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ENGINES, SELECTORS, Pipe

import omnipoll
from omnipoll import WRITE, Poller

LONG = 30

CTRL_C = """
import os, sys, omnipoll
engine, kind = sys.argv[1:]
if kind == "poller":
    wait = omnipoll.Poller(engine).wait
elif kind == "iteration":
    wait = lambda timeout=None: list(omnipoll.Poller(engine))
else:
    wait = getattr(omnipoll, engine.title().replace("_", "") + "Selector")().select
timeout = 1000 if kind == "timeout" else None
try:
    print("waiting", flush=True)
    wait(timeout) if timeout else wait()
except KeyboardInterrupt:
    os._exit(42)
"""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["poller", "iteration", "selector", "timeout"])
def test_ctrl_c_ends_a_wait(engine: str, kind: str) -> None:
    command = [sys.executable, "-c", CTRL_C, engine, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"
        status = None
        # Again and again, for the first may come before the system call.
        for _ in range(100):
            child.send_signal(signal.SIGINT)
            try:
                status = child.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                pass
        else:
            child.kill()
    assert status == 42


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has something done by a signal handler, soon."""

    def set_off(action: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: action())
        # Again and again, for the first may come before the system call.
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    old = signal.getsignal(signal.SIGALRM)
    yield set_off
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


Alarm = Callable[[Callable[[], None]], None]


def once(action: Callable[[], None]) -> Callable[[], None]:
    """What may not be done twice: on a busy machine the next signal comes before the timer is stopped."""
    done = False

    def act() -> None:
        nonlocal done
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not done:
            done = True
            action()

    return act


def test_a_handler_runs_and_the_wait_goes_on(poller: Poller, alarm: Alarm) -> None:
    calls: list[float] = []
    begin = time.monotonic()
    alarm(lambda: calls.append(time.monotonic()))
    assert poller.wait(0.1) == []
    end = time.monotonic()
    assert end - begin >= 0.1
    assert any(call < end for call in calls)


def test_a_handler_that_raises_ends_the_wait(poller: Poller, alarm: Alarm) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    with pytest.raises(Enough):
        alarm(once(stop))
        poller.wait(LONG)
    assert poller.wait(0) == []


def test_a_handler_wakes_the_wait(poller: Poller, alarm: Alarm) -> None:
    alarm(poller.wake)
    assert [event.kind for event in poller.wait(LONG)] == [omnipoll.WAKE]


def test_a_handler_registers(poller: Poller, pipe: Pipe, alarm: Alarm) -> None:
    alarm(once(lambda: poller.add(pipe.writer, WRITE)))
    assert [event.token for event in poller.wait(LONG)] == [pipe.writer]


def test_a_handler_waits_by_itself(poller: Poller, pipe: Pipe, alarm: Alarm) -> None:
    inner: list[object] = []

    def look() -> None:
        poller.add(pipe.writer, WRITE)
        inner.extend(event.token for event in poller.wait(LONG))
        poller.remove(pipe.writer)
        poller.wake()

    alarm(once(look))
    assert [event.kind for event in poller.wait(LONG)] == [omnipoll.WAKE]
    assert inner == [pipe.writer]


def test_a_handler_closes(poller: Poller, alarm: Alarm) -> None:
    alarm(poller.close)
    with pytest.raises(ValueError, match="closed"):
        poller.wait(LONG)


@pytest.mark.parametrize("way", ["wait", "select", "iteration"])
def test_a_handler_closes_and_leaves(engine: str, alarm: Alarm, way: str) -> None:
    watcher: Any = Poller(engine)
    wait: Callable[[], object] = {"wait": watcher.wait, "iteration": lambda: list(watcher)}.get(way, list)
    if way == "select":
        watcher = SELECTORS[ENGINES.index(engine)]()
        wait = watcher.select

    def leave() -> None:
        watcher.close()
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        alarm(once(leave))
        wait()
    with pytest.raises(ValueError, match="closed"):
        watcher.select() if way == "select" else watcher.wait()
