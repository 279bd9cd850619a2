"""What it costs to watch descriptors from Python. The C program `watch.c` says what is measured, and
has the same arguments: `watch.py PAIRS READY IDLE MILLISECONDS`. Bytes are not counted.

The garbage collector is left as it is by default.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import selectors
import socket
import statistics
import sys
import time
from functools import partial
from typing import Any, Callable, Protocol

import omnipoll

ROUNDS_TIME = 2_000_000  # nanoseconds, unless three rounds need longer
MAX_ROUNDS = 100
FD_SETSIZE = 1024  # the standard select knows no higher descriptor
FIGURES = ("event_ns", "add_ns", "change_ns", "remove_ns")


class Watcher(Protocol):
    def add(self, fd: int) -> None: ...
    def change(self, fd: int) -> None: ...
    def remove(self, fd: int) -> object: ...
    def wait(self, timeout: float | None) -> list[int]: ...
    def close(self) -> None: ...


class Bare:
    """select.epoll."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.close = self.epoll.close
        self.remove = self.epoll.unregister

    def add(self, fd: int) -> None:
        self.epoll.register(fd, select.EPOLLIN)

    def change(self, fd: int) -> None:
        self.epoll.modify(fd, select.EPOLLOUT)

    def wait(self, timeout: float | None) -> list[int]:
        return [fd for fd, _ in self.epoll.poll(timeout, 1024)]


class Selector:
    """The interface of the standard library's selectors."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self.close = selector.close

    def add(self, fd: int) -> None:
        self.selector.register(fd, selectors.EVENT_READ)

    def remove(self, fd: int) -> None:
        self.selector.unregister(fd)

    def change(self, fd: int) -> None:
        self.selector.modify(fd, selectors.EVENT_WRITE)

    def wait(self, timeout: float | None) -> list[int]:
        return [key.fd for key, _ in self.selector.select(timeout)]


class Poller:
    """omnipoll's own interface."""

    def __init__(self, engine: str) -> None:
        self.poller = omnipoll.Poller(engine)
        self.close = self.poller.close
        self.remove = self.poller.remove

    def add(self, fd: int) -> None:
        self.poller.add(fd, omnipoll.READ)

    def change(self, fd: int) -> None:
        self.poller.modify(fd, omnipoll.WRITE)

    def wait(self, timeout: float | None) -> list[int]:
        return [event.value for event in self.poller.wait(timeout, 1024)]


def contenders(highest: int) -> dict[str, Callable[[], Watcher]]:
    """The first is what the others are compared with."""
    found: dict[str, Callable[[], Watcher]] = {"select.epoll": Bare, "select.epoll again": Bare}
    for name, module in (("selectors", selectors), ("omnipoll", omnipoll)):
        for attribute in ("EpollSelector", "PollSelector", "SelectSelector", "IoUringSelector"):
            too_high = module is selectors and attribute == "SelectSelector" and highest >= FD_SETSIZE
            if hasattr(module, attribute) and not too_high:
                found[f"{name}.{attribute}"] = partial(open_selector, getattr(module, attribute))
    for engine in omnipoll_engines():
        found[f"omnipoll.Poller {engine}"] = partial(Poller, engine)
    return found


def open_selector(kind: Callable[[], selectors.BaseSelector]) -> Watcher:
    return Selector(kind())


def omnipoll_engines() -> list[str]:
    found = []
    for engine in ("select", "poll", "epoll", "io_uring"):
        try:
            omnipoll.Poller(engine).close()
        except (OSError, ValueError):
            continue
        found.append(engine)
    return found


def fill(end: socket.socket) -> None:
    """With its smallest buffer filled, an end is never writable."""
    end.setblocking(False)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    try:
        while True:
            end.send(bytes(2048))
    except BlockingIOError:
        pass


class Match:
    def __init__(self, pairs: int, ready: int, idle: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.pairs = [socket.socketpair() for _ in range(pairs)]
        for end, _ in self.pairs:
            fill(end)
        self.changed = [end.fileno() for end, _ in self.pairs]
        self.watched = self.changed + [os.eventfd(0) for _ in range(idle)]
        self.ready = ready

    def round(self, watcher: Watcher) -> float:
        for _, writer in random.sample(self.pairs, self.ready):
            writer.send(b"x")
        read = os.read
        visited = 0
        begin = time.perf_counter_ns()
        while visited < self.ready:
            fds = watcher.wait(None)
            for fd in fds:
                read(fd, 1)
            visited += len(fds)
        return (time.perf_counter_ns() - begin) / self.ready

    def turn(self, open_watcher: Callable[[], Watcher]) -> list[float]:
        watcher = open_watcher()
        add = self.each(watcher, watcher.add, self.watched)
        self.round(watcher)
        self.round(watcher)
        times: list[float] = []
        end = time.perf_counter_ns() + ROUNDS_TIME
        while len(times) < 3 or (len(times) < MAX_ROUNDS and time.perf_counter_ns() < end):
            times.append(self.round(watcher))
        change = self.each(watcher, watcher.change, self.changed)
        remove = self.each(watcher, watcher.remove, self.watched)
        watcher.close()
        return [statistics.median(times), add, change, remove]

    def each(self, watcher: Watcher, call: Callable[[int], Any], fds: list[int]) -> float:
        begin = time.perf_counter_ns()
        for fd in fds:
            call(fd)
        found = watcher.wait(0)
        elapsed = time.perf_counter_ns() - begin
        assert not found, "nothing is ready"
        return elapsed / len(fds)


def main() -> None:
    pairs, ready, idle, milliseconds = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    match = Match(pairs, ready, idle)
    found = contenders(max(match.watched))
    turns: dict[str, list[list[float]]] = {name: [] for name in found}
    begin = time.monotonic()
    while len(turns[next(iter(found))]) < 4 or time.monotonic() < begin + milliseconds / 1000:
        for name in random.sample(list(found), len(found)):
            turns[name].append(match.turn(found[name]))
    for name, values in turns.items():
        columns = zip(*values[1:])  # the first is for the caches
        print(json.dumps({"contender": f"{name}, Python", "figures": dict(zip(FIGURES, map(list, columns)))}))


if __name__ == "__main__":
    main()
