"""Wait policies of pollers, loops and servers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

import pytest
from conftest import LONG, Pipe
from loops import ADDRESS
from serving import Echo, connect, receive

import omnipoll
from omnipoll import Connection, Loop, Poller, Server


def test_thrifty_gathers_events_for_its_time(engine: str, pipe: Pipe) -> None:
    with Poller(engine, wait_policy=("thrifty", 0.02)) as poller:
        poller.add(pipe.reader, omnipoll.READ, "pipe")
        os.write(pipe.writer, b"x")
        poller.post("post")
        begun = time.monotonic()
        assert {event.token for event in poller.wait(LONG)} == {"pipe", "post"}
        assert time.monotonic() - begun >= 0.02
    with Poller(engine, wait_policy=("thrifty", 3600)) as poller:
        poller.timer_add(0.001, token="timer")
        assert [event.token for event in poller.wait()] == ["timer"]
        assert poller.wait(0.001) == poller.wait(0) == []


def test_latency_looks_before_it_sleeps(engine: str) -> None:
    calls = {}
    for policy in ("balanced", ("latency", 0.001)):
        with Poller(engine, wait_policy=policy) as poller:
            assert poller.wait(0.005) == []
            calls[policy[0]] = poller.stats().system_calls
    assert calls["b"] < calls["latency"]


@pytest.mark.parametrize("kind", ["poller", "loop", "server"])
@pytest.mark.parametrize("to", ["the process", "the thread that waits"])
def test_a_signal_interrupts_a_wait_that_spins(engine: str, kind: str, to: str) -> None:
    """Also one that another thread takes: the one that waits holds them back while it spins."""

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    def send() -> None:
        end = time.monotonic() + 0.1
        while system_calls() < before + 4 and time.monotonic() < end:
            time.sleep(0)
        if to == "the process":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    with ExitStack() as ends:
        wait, system_calls = waiting(ends, engine, kind)
        before = system_calls()
        ends.callback(signal.signal, signal.SIGUSR1, signal.signal(signal.SIGUSR1, interrupt))
        sending = threading.Thread(target=send)
        begun = time.monotonic()
        sending.start()
        with pytest.raises(InterruptedError):
            wait(LONG)
        assert time.monotonic() - begun < LONG
        sending.join()


def waiting(ends: ExitStack, engine: str, kind: str) -> tuple[Callable[[float], Any], Callable[[], int]]:
    """A wait that looks for a while before it sleeps, and how many system calls it has made."""
    policy: tuple[Literal["latency"], float] = ("latency", 0.3)
    if kind == "server":
        server = Server(Echo(), ADDRESS, engine=engine, wait_policy=policy)
        server.start()
        ends.callback(server.run_once, 0)
        ends.callback(server.stop, 0)
        return server.run_once, lambda: 0
    if kind == "loop":
        loop = ends.enter_context(Loop(engine, wait_policy=policy))
        return loop.wait, lambda: loop.poller.stats().system_calls
    poller = ends.enter_context(Poller(engine, wait_policy=policy))
    return poller.wait, lambda: poller.stats().system_calls


def test_a_loop_has_one(engine: str) -> None:
    with Loop(engine, wait_policy=("thrifty", 0.02)) as loop:
        loop.wait(0)
        loop.poller.post("post")
        begun = time.monotonic()
        assert [event.token for event in loop.wait(LONG)] == ["post"]
        assert time.monotonic() - begun >= 0.02
    with Loop(engine, wait_policy=("latency", 3600)) as loop:
        loop.poller.timer_add(0.005, token="timer")
        assert [event.token for event in loop.wait()] == ["timer"]
        assert loop.poller.stats().system_calls > 2


def test_a_server_has_one(engine: str) -> None:
    """The answer to one message comes before the next, and each is read at the end of another wait."""

    class Echo:
        def on_data(self, connection: Connection, data: bytes) -> None:
            connection.write(data)

    server = Server(Echo(), ADDRESS, engine=engine, wait_policy=("thrifty", 0.005))
    with server, connect(server.addresses[0]) as client:
        begun = time.monotonic()
        for _ in range(5):
            client.sendall(b"x")
            assert receive(client, 1) == b"x"
        assert time.monotonic() - begun >= 4 * 0.005


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("thrifty", "has a time"),
        (("balanced", 1), "has no time"),
        ("thirfty", "there is no wait policy named 'thirfty'.*did you mean 'thrifty'"),
        (("latency", -1), "wait_policy"),
    ],
)
def test_those_that_make_no_sense(policy: Any, words: str) -> None:
    handler: Any = object()
    for make in (Poller, Loop, lambda **options: Server(handler, **options)):
        with pytest.raises(ValueError, match=words):
            make(wait_policy=policy)
    with pytest.raises(TypeError):
        Poller(wait_policy=1)  # type: ignore[arg-type]
