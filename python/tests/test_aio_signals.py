"""The asyncio loop's signals, and forks while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import aio
import pytest
from conftest import LONG, Pipe
from loops import wait_until_asleep

import omnipoll
from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)


def send_once_asleep(loop: asyncio.AbstractEventLoop, send: Callable[[], object]) -> threading.Thread:
    """Starts a thread that calls it; the loop has nothing to do but to wait."""

    def run() -> None:
        wait_until_asleep()
        send()

    thread = threading.Thread(target=run)
    loop.call_soon(thread.start)
    return thread


def test_an_interrupt_that_another_thread_receives_ends_the_wait(loop: EventLoop) -> None:
    def interrupt() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = send_once_asleep(loop, interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()
    assert not loop.is_running()
    assert signal.set_wakeup_fd(-1) == -1
    loop.call_soon(loop.stop)
    loop.run_forever()


def interrupt_at(count: int, call: Callable[[], object]) -> bool:
    """Calls it, interrupted before the line of Python's with this number, if it has so many."""
    left = count

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_name == "_read_from_self":
            return None  # What is raised by a trace while an exception is handled is handled for ever.
        if event == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("debug", (False, True))
def test_an_interrupt_at_any_moment_leaves_a_loop_that_does_not_run(loop: EventLoop, debug: bool) -> None:
    def finish() -> None:
        loop.stop()

    loop.set_debug(debug)
    hooks = sys.get_asyncgen_hooks()
    count, is_interrupted = 0, True
    while is_interrupted:
        count += 1
        handle = loop.call_soon(finish)
        is_interrupted = interrupt_at(count, loop.run_forever)
        handle.cancel()
        assert not loop.is_running()
        assert asyncio._get_running_loop() is None
        assert sys.get_asyncgen_hooks() == hooks
        assert sys.get_coroutine_origin_tracking_depth() == 0
        assert signal.set_wakeup_fd(-1) == -1
    assert count > 3


def test_an_interrupt_cancels_the_main_task(engine: str) -> None:
    ended: list[str] = []

    async def main() -> None:
        interrupt = partial(os.kill, os.getpid(), signal.SIGINT)
        thread = send_once_asleep(asyncio.get_running_loop(), interrupt)
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append("main")
            thread.join()

    with pytest.raises(KeyboardInterrupt):
        omnipoll.run(main(), engine=engine)
    assert ended == ["main"]


def test_signal_handlers(loop: EventLoop) -> None:
    calls: list[str] = []

    def handle(name: str) -> None:
        calls.append(name)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handle, "usr1")
    thread = send_once_asleep(loop, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run_forever()
    thread.join()
    assert calls == ["usr1"]
    # The next run has it, too.
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert calls == ["usr1", "usr1"]
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert not loop.remove_signal_handler(signal.SIGUSR1)


def test_a_program_s_own_wakeup_descriptor_stays(loop: EventLoop, pipe: Pipe) -> None:
    previous = signal.set_wakeup_fd(pipe.writer)
    try:
        loop.call_soon(loop.stop)
        loop.run_forever()
    finally:
        assert signal.set_wakeup_fd(previous) == pipe.writer


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_loop_runs_on_in_parent_and_child_after_a_fork(loop: EventLoop, pipe: Pipe) -> None:
    """Each with registrations of its own: what one does is not seen by the other."""
    seen: list[bytes] = []
    pids: list[int] = []

    def read() -> None:
        seen.append(os.read(pipe.reader, 100))
        loop.stop()

    def fork() -> None:
        pids.append(os.fork())
        if pids == [0]:
            loop.remove_reader(pipe.reader)

    loop.add_reader(pipe.reader, read)
    loop.call_soon(fork)
    loop.call_later(0.001, loop.stop)
    status = 1
    try:
        loop.run_forever()
        if pids == [0]:
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
            loop.call_soon(thread.start)
            loop.run_forever()
            status = 0
    finally:
        if pids == [0]:
            os._exit(status)
    assert os.waitpid(pids[0], 0)[1] == 0
    os.write(pipe.writer, b"data")
    loop.run_forever()
    assert seen == [b"data"]


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Signals all the time; what is noted of them."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signals_interrupt_no_call(loop: EventLoop, alarms: list[int]) -> None:
    while len(alarms) < 20:
        assert aio.run(loop, aio.converse(3)) == [0, 1, 2]
