"""The poller of a loop, whose events are the program's own, and loops in an outer loop."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from conftest import LONG, Pipe
from loops import in_thread

import omnipoll
from omnipoll import Event, Loop, LoopEvent


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
