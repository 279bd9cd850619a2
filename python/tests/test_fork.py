"""A poller in a forked child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable

import pytest
from conftest import LONG, SHORT, Pipe, ready

from omnipoll import WRITE, Poller


def forks() -> dict[str, Callable[[], int]]:
    """The ways to fork that this system has. The last two run no handler of pthread_atfork(3)."""
    libc = ctypes.PyDLL(None)
    calls: dict[str, Callable[[], int]] = {"fork": os.fork}
    if hasattr(libc, "_Fork"):
        calls["_Fork"] = libc._Fork
    if number := {"x86_64": 56, "aarch64": 220, "riscv64": 220}.get(platform.machine()):
        calls["clone"] = lambda: libc.syscall(number, int(signal.SIGCHLD), 0, 0, 0, 0)
    return calls


FORKS = forks()


def in_child(body: Callable[[], bool], fork: Callable[[], int] = os.fork) -> bool:
    """Whether `body` returned True in a forked child."""
    child = fork()
    if child == 0:
        status = 1
        try:
            status = 0 if body() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_must_say_that_it_was_forked(poller: Poller, pipes: list[Pipe]) -> None:
    first, second = pipes[:2]
    poller.add(first.writer, WRITE, "first")

    def child() -> bool:
        for use in (
            lambda: poller.wait(0),
            lambda: poller.add(second.writer, WRITE),
            lambda: poller.remove(first.writer),
            poller.wake,
        ):
            try:
                use()
            except OSError as error:
                if error.errno != 130:  # EOWNERDEAD
                    return False
            else:
                return False
        poller.after_fork()
        inherited = ready(poller, 0) == {"first": WRITE}
        poller.remove(first.writer)
        poller.add(second.writer, WRITE, "second")
        return inherited and ready(poller, 0) == {"second": WRITE}

    assert in_child(child)
    assert ready(poller, 0) == {"first": WRITE}
    poller.after_fork()
    assert ready(poller, 0) == {"first": WRITE}


def test_a_child_may_close_what_it_inherited(poller: Poller, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE)

    def child() -> bool:
        poller.close()
        return poller.closed

    assert in_child(child)
    assert ready(poller, 0) == {pipe.writer: WRITE}


def descriptors() -> set[str]:
    """All that are open; the one that they are read with is not."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def waiting(poller: Poller) -> threading.Thread:
    """A thread that waits until the poller is closed, and has made what its waits need."""

    def wait() -> None:
        poller.wait(0)
        with contextlib.suppress(ValueError):
            poller.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    while poller.stats().waits < 2:
        pass
    return thread


# CPython warns of a fork beside threads, which is what these are about.
beside_threads = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize("fork", FORKS)
def test_every_kind_of_fork_is_noticed(poller: Poller, fork: str, pipe: Pipe) -> None:
    poller.add(pipe.writer, WRITE, "token")

    def child() -> bool:
        with pytest.raises(OSError) as error:
            poller.wait(0)
        poller.after_fork()
        return error.value.errno == 130 and ready(poller, 0) == {"token": WRITE}  # EOWNERDEAD

    assert in_child(child, FORKS[fork])
    assert ready(poller, 0) == {"token": WRITE}


@beside_threads
@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_child_closes_what_another_thread_waited_for(
    engine: str, rebuilt: bool, fork: str, pipe: Pipe
) -> None:
    before = descriptors()
    poller = Poller(engine)
    thread = waiting(poller)

    def child() -> bool:
        if rebuilt:
            poller.after_fork()
            poller.add(pipe.writer, WRITE, "child's")
            if ready(poller, 0) != {"child's": WRITE}:
                return False
        poller.close()
        return descriptors() == before

    assert in_child(child, FORKS[fork])
    poller.close()
    thread.join(LONG)
    assert descriptors() == before


@beside_threads
@pytest.mark.parametrize("fork", FORKS)
def test_a_child_closes_what_was_closed_while_a_thread_left_its_wait(engine: str, fork: str) -> None:
    before = descriptors()
    poller = Poller(engine)
    thread = waiting(poller)

    def child() -> bool:
        poller.close()
        return descriptors() == before

    interval = sys.getswitchinterval()
    # The thread has been woken, and can't have the interpreter's lock before the fork.
    sys.setswitchinterval(1000)
    try:
        poller.close()
        closed = in_child(child, FORKS[fork])
    finally:
        sys.setswitchinterval(interval)
    assert closed
    thread.join(LONG)
    assert descriptors() == before


@beside_threads
def test_a_child_closes_what_its_own_thread_waits_for(engine: str) -> None:
    """A handler of a signal forks and closes; another thread waits as well."""

    class InParentError(Exception):
        pass

    child = 0

    def fork(*_: object) -> None:
        nonlocal child
        child = os.fork()
        if child:
            raise InParentError
        poller.close()

    before = descriptors()
    poller = Poller(engine)
    thread = waiting(poller)
    handler = signal.signal(signal.SIGALRM, fork)
    try:
        signal.setitimer(signal.ITIMER_REAL, SHORT)
        with pytest.raises(InParentError):
            poller.wait(LONG)
    except ValueError:  # It was closed: this is the child.
        os._exit(0 if descriptors() == before else 2)
    finally:
        if child == 0:
            os._exit(1)
        signal.signal(signal.SIGALRM, handler)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    poller.close()
    thread.join(LONG)
