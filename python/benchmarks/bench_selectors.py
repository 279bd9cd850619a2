"""What a wait costs from Python, side by side with the standard library, in one run.

Watches socket pairs of which some are readable and calls each contender's wait in turn, round
after round, so that a change of the machine's mood hits all alike. Prints the median time of a
call and how many times as fast as the standard library's counterpart ours is. The garbage
collector is left as it is by default.

    python bench_selectors.py [--watched 1000] [--ready 1,100,1000] [--rounds 41]
"""

from __future__ import annotations

import argparse
import resource
import select
import selectors
import socket
import statistics
import sys
import time
from typing import Any, Callable

import omnipoll

Wait = Callable[[], "list[Any]"]
FAMILIES = ("epoll", "poll", "select")
FD_SETSIZE = 1024  # The standard select knows no higher descriptor.


def standard_selector(family: str) -> selectors.BaseSelector:
    return {
        "epoll": selectors.EpollSelector,
        "poll": selectors.PollSelector,
        "select": selectors.SelectSelector,
    }[family]()


def our_selector(family: str) -> selectors.BaseSelector:
    return {
        "epoll": omnipoll.EpollSelector,
        "poll": omnipoll.PollSelector,
        "select": omnipoll.SelectSelector,
    }[family]()


def contenders(family: str, sockets: list[socket.socket], timeout: float | None) -> dict[str, Wait]:
    """Every way to wait for these sockets on one system call, ready to be called."""
    waits: dict[str, Wait] = {}
    fds = [sock.fileno() for sock in sockets]
    pairs = [("our selector", our_selector(family))]
    if family != "select" or max(fds) < FD_SETSIZE:
        pairs.append(("standard selector", standard_selector(family)))
    for name, selector in pairs:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
        waits[name] = lambda wait=selector.select: wait(timeout)  # type: ignore[misc]

    poller = omnipoll.Poller(family)
    for sock in sockets:
        poller.add(sock, omnipoll.READ)
    waits["our Poller"] = lambda: poller.wait(timeout)

    if family == "epoll":
        epoll = select.epoll()
        for fd in fds:
            epoll.register(fd, select.EPOLLIN)
        size = len(fds)
        waits["bare call"] = lambda: epoll.poll(timeout, size)
    elif family == "poll":
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        waits["bare call"] = lambda: poll.poll(timeout)
    elif max(fds) < FD_SETSIZE:
        waits["bare call"] = lambda: select.select(fds, (), (), timeout)[0]
    return waits


def medians(waits: dict[str, Wait], ready: int, rounds: int) -> dict[str, float]:
    """Nanoseconds a call, the median of the rounds."""
    for name, wait in waits.items():
        assert len(wait()) == ready, name
    started = time.perf_counter()
    next(iter(waits.values()))()
    once = time.perf_counter() - started
    calls = max(5, min(2000, int(0.002 / once)))
    times: dict[str, list[float]] = {name: [] for name in waits}
    for _ in range(rounds):
        for name, wait in waits.items():
            started = time.perf_counter_ns()
            for _ in range(calls):
                wait()
            times[name].append((time.perf_counter_ns() - started) / calls)
    return {name: statistics.median(samples) for name, samples in times.items()}


def watch(count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Socket pairs: what to watch, and what to write to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 64
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    pairs = [socket.socketpair() for _ in range(count)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--watched", type=int, default=1000)
    parser.add_argument("--ready", default="1,100,1000")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()

    print(f"Python {sys.version.split()[0]}, {options.watched} watched; times in us a call")
    header = ("engine", "ready", "timeout", "standard", "bare", "our selector", "our Poller")
    ratios = ("selector/standard", "selector/bare", "Poller/bare")
    print("{:7}{:>6}{:>9}{:>10}{:>9}{:>14}{:>12}  |{:>19}{:>15}{:>13}".format(*header, *ratios))
    sockets, peers = watch(options.watched)
    filled = 0
    for ready in sorted(int(count) for count in options.ready.split(",")):
        for peer in peers[filled:ready]:
            peer.send(b"x")
        filled = ready
        for family in FAMILIES:
            for timeout in (None, 0):
                waits = contenders(family, sockets, timeout)
                took = medians(waits, ready, options.rounds)
                ours, poller = took["our selector"], took["our Poller"]
                standard = took.get("standard selector", float("nan"))
                bare = took.get("bare call", float("nan"))
                print(
                    f"{family:7}{ready:6}{timeout!s:>9}{standard / 1e3:10.2f}{bare / 1e3:9.2f}"
                    f"{ours / 1e3:14.2f}{poller / 1e3:12.2f}  |{standard / ours:19.2f}"
                    f"{bare / ours:15.2f}{bare / poller:13.2f}"
                )


if __name__ == "__main__":
    main()
