"""A poller that several threads use: wakes, changes during a wait, shared events."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from conftest import LONG, SHORT, Pipe, ready

from omnipoll import ONESHOT, READ, WAKE, WRITE, Poller


def test_wakes_are_counted_into_one_event(poller: Poller) -> None:
    for _ in range(3):
        poller.wake()
    assert [(event.kind, event.value) for event in poller.wait()] == [(WAKE, 3)]
    assert poller.wait(0) == []


def test_a_thread_wakes_a_wait(poller: Poller) -> None:
    thread = threading.Thread(target=poller.wake)
    thread.start()
    assert [event.kind for event in poller.wait(LONG)] == [WAKE]
    thread.join()


def test_a_change_counts_for_the_wait_under_way(poller: Poller, pipe: Pipe) -> None:
    seen: list[dict[object, int]] = []
    waiter = threading.Thread(target=lambda: seen.append(ready(poller)))
    waiter.start()
    poller.add(pipe.writer, WRITE)
    waiter.join(LONG)
    assert seen == [{pipe.writer: WRITE}]


def test_closing_ends_every_wait(poller: Poller) -> None:
    ended: list[str] = []

    def wait() -> None:
        try:
            poller.wait()
        except ValueError as error:
            ended.append(str(error))

    waiters = [threading.Thread(target=wait) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    poller.close()
    for waiter in waiters:
        waiter.join(LONG)
    assert ended == ["I/O operation on a closed poller"] * 4


def test_many_threads_share_the_events(poller: Poller, pipes: list[Pipe]) -> None:
    """ONESHOT hands each readiness to one thread, and modify gives it back."""
    rounds = 50
    lock, counts = threading.Lock(), dict.fromkeys((pipe.reader for pipe in pipes), 0)
    done = threading.Event()
    owners: set[int] = set()

    def serve() -> None:
        while not done.is_set():
            for event in poller.wait(LONG):
                if event.kind == WAKE:
                    continue
                with lock:
                    assert event.value not in owners, "two threads have it"
                    owners.add(event.value)
                os.read(event.value, 1)
                with lock:
                    owners.discard(event.value)
                    counts[event.value] += 1
                    if set(counts.values()) == {rounds}:
                        done.set()
                poller.modify(event.value, READ | ONESHOT)
        poller.wake()

    for pipe in pipes:
        poller.add(pipe.reader, READ | ONESHOT)
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        for pipe in pipes:
            os.write(pipe.writer, b"x")
    for thread in threads:
        thread.join(LONG)
    assert set(counts.values()) == {rounds}


def is_in_wait(thread: threading.Thread) -> bool:
    """Whether a thread is in a system call that waits for descriptors, by its number on x86-64.

    True where the kernel doesn't show it, or has other numbers.
    """
    try:
        number = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0]
    except OSError:
        return True
    return os.uname().machine != "x86_64" or number in {"7", "23", "232", "270", "271", "281", "426", "441"}


def test_what_is_removed_is_not_reported(poller: Poller, pipe: Pipe) -> None:
    """Also not when another thread has it already, and only waits for the interpreter."""
    seen: list[int] = []

    def wait() -> None:
        seen.extend(event.kind for event in poller.wait(LONG))

    write_attached = ctypes.PyDLL(None).write
    poller.add(pipe.reader, READ)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LONG)
    try:
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not is_in_wait(waiter):
            pass
        write_attached(pipe.writer, b"x", 1)
        end = time.monotonic() + SHORT
        while time.monotonic() < end:
            pass  # The waiter comes back from the system call.
        poller.remove(pipe.reader)
        poller.wake()
    finally:
        sys.setswitchinterval(interval)
    waiter.join(LONG)
    assert seen == [WAKE]


WAITS_AT_EXIT = """
import builtins, sys, threading, time, omnipoll
def wait(waits):
    while True:
        waits(0.0001)
for _ in range(4):
    threading.Thread(target=wait, args=(omnipoll.Poller(sys.argv[1]).wait,), daemon=True).start()
    threading.Thread(target=wait, args=(omnipoll.DefaultSelector().select,), daemon=True).start()
class Last:
    def __init__(self):
        self.sleep = time.sleep
    def __del__(self):
        self.sleep(0.05)  # While the interpreter ends, the threads come back to it.
builtins.last = Last()
"""


def test_threads_that_wait_while_the_interpreter_ends(engine: str) -> None:
    subprocess.run([sys.executable, "-c", WAITS_AT_EXIT, engine], check=True, timeout=LONG)
