"""What a poller waits for besides descriptors: signals, children, posts, and (in test_timers.py) timers."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ENGINES, LONG, SHORT, Pipe, Token, one, stale, tokens

import omnipoll
from omnipoll import CHILD, IO, POST, READ, SIGNAL, TIMER, WAKE, WRITE, Poller

# ---- Signals -------------------------------------------------------------------------------


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What Python's own handler of SIGUSR1 was called with."""
    calls: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda signum, _: calls.append(signum))
    yield calls
    signal.signal(signal.SIGUSR1, old)


def raise_signal(signum: int, times: int = 1) -> None:
    for _ in range(times):
        signal.raise_signal(signum)


def test_a_signal_is_an_event_and_pythons_handler_rests(poller: Poller, handled: list[int]) -> None:
    poller.signal_add(signal.SIGUSR1, token="usr1")
    raise_signal(signal.SIGUSR1, times=3)
    event = one(poller)
    assert (event.kind, event.token, event.ready) == (SIGNAL, "usr1", 0)
    assert (event.value, event.count) == (signal.SIGUSR1, 3)
    assert repr(event) == f"Event(kind=SIGNAL, token='usr1', value={int(signal.SIGUSR1)}, count=3)"
    raise_signal(signal.SIGUSR1)
    assert one(poller).count == 1
    assert handled == []
    poller.signal_remove(signal.SIGUSR1)
    raise_signal(signal.SIGUSR1)
    assert handled == [signal.SIGUSR1]
    assert poller.wait(0) == []


def test_without_a_token_it_is_the_signal(poller: Poller, handled: list[int]) -> None:
    poller.signal_add(signal.SIGUSR1)
    raise_signal(signal.SIGUSR1)
    assert one(poller).token is signal.SIGUSR1


def test_closing_restores_pythons_handler(engine: str, handled: list[int]) -> None:
    with Poller(engine) as poller:
        poller.signal_add(signal.SIGUSR1)
    raise_signal(signal.SIGUSR1)
    assert handled == [signal.SIGUSR1]


def test_each_poller_reports_it(engine: str, handled: list[int]) -> None:
    with Poller(engine) as first, Poller(engine) as second:
        first.signal_add(signal.SIGUSR1, "first")
        second.signal_add(signal.SIGUSR1, "second")
        raise_signal(signal.SIGUSR1)
        assert (tokens(first), tokens(second)) == (["first"], ["second"])
        first.signal_remove(signal.SIGUSR1)
        raise_signal(signal.SIGUSR1)
        assert (tokens(first, 0), tokens(second)) == ([], ["second"])
    assert handled == []


def test_a_signal_ends_a_wait_under_way(poller: Poller, handled: list[int]) -> None:
    poller.signal_add(signal.SIGUSR1)
    thread = threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGUSR1))
    thread.start()
    assert one(poller).kind == SIGNAL
    thread.join()


def test_what_is_no_signal_to_watch(poller: Poller, handled: list[int]) -> None:
    for number in (0, -1, 65, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGFPE):
        with pytest.raises(ValueError):
            poller.signal_add(number)
    poller.signal_add(signal.SIGUSR1)
    with pytest.raises(FileExistsError):
        poller.signal_add(signal.SIGUSR1)
    poller.signal_remove(signal.SIGUSR1)
    with pytest.raises(FileNotFoundError):
        poller.signal_remove(signal.SIGUSR1)
    for wrong in ("SIGTERM", None, 1.0):
        with pytest.raises(TypeError):
            poller.signal_add(wrong)  # type: ignore[arg-type]


NO_KEYBOARD_INTERRUPT = """
import omnipoll, signal, sys
with omnipoll.Poller(sys.argv[1]) as poller:
    poller.signal_add(signal.SIGINT, "ctrl-c")
    print("waiting", flush=True)
    (event,) = poller.wait(30)
    assert event.token == "ctrl-c", event
try:
    signal.raise_signal(signal.SIGINT)
    sys.exit("no KeyboardInterrupt")
except KeyboardInterrupt:
    sys.exit(42)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_is_an_event_while_it_is_watched(engine: str) -> None:
    command = [sys.executable, "-c", NO_KEYBOARD_INTERRUPT, engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(LONG) == 42


# ---- Children ------------------------------------------------------------------------------


def start(program: str) -> subprocess.Popen[bytes]:
    """A child that runs this once its standard input is closed."""
    command = [sys.executable, "-c", f"import os, signal, sys; sys.stdin.read(); {program}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def let_go(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()


@pytest.mark.parametrize(
    ("program", "code"),
    [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_a_child_that_ends(poller: Poller, program: str, code: int) -> None:
    child = start(program)
    poller.child_add(child)
    assert poller.wait(0) == []
    let_go(child)
    event = one(poller)
    assert (event.kind, event.token, event.ready, event.count) == (CHILD, child, 0, 1)
    assert os.waitstatus_to_exitcode(event.value) == code
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)
    child.returncode = code
    assert child.wait() == code
    with pytest.raises(FileNotFoundError):
        poller.child_remove(child)
    with pytest.raises(ChildProcessError):
        poller.child_add(child)


def test_a_child_by_number(poller: Poller) -> None:
    child = start("sys.exit(3)")
    poller.child_add(child.pid, token="worker")
    with pytest.raises(FileExistsError):
        poller.child_add(child)
    let_go(child)
    event = one(poller)
    child.returncode = os.waitstatus_to_exitcode(event.value)
    assert (event.token, child.returncode) == ("worker", 3)


def test_a_forgotten_child_is_not_reaped(poller: Poller) -> None:
    child = start("sys.exit(5)")
    poller.child_add(child, "forgotten")
    poller.child_remove(child)
    with pytest.raises(FileNotFoundError):
        poller.child_remove(child.pid)
    let_go(child)
    assert child.wait(LONG) == 5
    assert poller.wait(0) == []


def test_several_children(poller: Poller) -> None:
    children = [start(f"sys.exit({number})") for number in range(5)]
    for child in children:
        poller.child_add(child)
    for child in children:
        let_go(child)
    codes: dict[object, int] = {}
    while len(codes) < 5:
        for event in poller.wait(LONG):
            codes[event.token] = event.token.returncode = os.waitstatus_to_exitcode(event.value)
    assert codes == {child: number for number, child in enumerate(children)}


def test_what_is_no_child(poller: Poller) -> None:
    for number in (os.getpid(), 1, 0, -1):
        with pytest.raises(ChildProcessError):
            poller.child_add(number)
    for wrong in ("1", None, 1.5):
        with pytest.raises(TypeError):
            poller.child_add(wrong)  # type: ignore[arg-type]
    assert "others" not in repr(poller)


# ---- Posts ---------------------------------------------------------------------------------


def test_a_post_hands_over_an_object_and_a_value(poller: Poller) -> None:
    thing = Token()
    for value in (0, 42, -(2**63), 2**63 - 1):
        poller.post(thing, value)
        event = one(poller)
        assert (event.kind, event.token, event.value, event.ready) == (POST, thing, value, 0)
    poller.post(None)
    event = one(poller)
    assert (event.token, event.value) == (None, 0)
    assert repr(event) == "Event(kind=POST, token=None, value=0)"
    for wrong in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            poller.post("too much", wrong)
    assert poller.wait(0) == []


def test_posts_of_threads_keep_their_order_and_none_is_lost(poller: Poller) -> None:
    def work(name: int) -> None:
        for number in range(500):
            poller.post(name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    seen: dict[int, list[int]] = {name: [] for name in range(4)}
    for _ in range(2000):
        if all(len(numbers) == 500 for numbers in seen.values()):
            break
        for event in poller.wait(LONG):
            seen[event.token].append(event.value)
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(500)) for numbers in seen.values())


def test_a_full_queue_is_an_error(poller: Poller) -> None:
    token = Token()
    before = sys.getrefcount(token)
    for number in range(65_536):
        poller.post(token, number)
    with pytest.raises(BlockingIOError):
        poller.post(token)
    seen = 0
    while seen < 65_536:
        events = poller.wait(0)
        assert [event.value for event in events] == list(range(seen, seen + len(events)))
        seen += len(events)
    del events
    poller.post(token)
    assert tokens(poller) == [token]
    assert sys.getrefcount(token) == before


# ---- All of it -----------------------------------------------------------------------------


def test_one_wait_for_everything(poller: Poller, pipe: Pipe, handled: list[int]) -> None:
    child = start("")
    poller.add(pipe.writer, WRITE | omnipoll.ONESHOT, "io")
    poller.timer_add(0, token="timer")
    poller.signal_add(signal.SIGUSR1, "signal")
    poller.child_add(child, "child")
    poller.post("post")
    poller.wake()
    assert repr(poller).endswith("1 registered and 4 others>")
    raise_signal(signal.SIGUSR1)
    let_go(child)
    seen: dict[int, object] = {}
    for event in poller:
        seen[event.kind] = event.token
        if event.kind == CHILD:
            child.returncode = os.waitstatus_to_exitcode(event.value)
        if len(seen) == 6:
            break
    assert seen == {IO: "io", TIMER: "timer", SIGNAL: "signal", CHILD: "child", WAKE: None, POST: "post"}
    assert repr(poller).endswith("1 registered and 1 others>")


@pytest.mark.parametrize("max_events", [1, 2])
def test_what_does_not_fit_comes_later(poller: Poller, pipe: Pipe, max_events: int) -> None:
    poller.add(pipe.writer, WRITE, "always")
    for number in range(10):
        poller.post(number)
    seen: list[object] = []
    for _ in range(100):
        events = poller.wait(LONG, max_events)
        assert 1 <= len(events) <= max_events
        seen += [event.token for event in events]
    assert [token for token in seen if token != "always"] == list(range(10))
    assert "always" in seen


def test_tokens_are_let_go(poller: Poller, handled: list[int]) -> None:
    token = Token()
    before = sys.getrefcount(token)
    child, other = start(""), start("")
    once = poller.timer_add(0, token=token)
    poller.timer_add_at(0, token)
    periodic = poller.timer_add(0, 60, token)
    poller.signal_add(signal.SIGUSR1, token)
    poller.child_add(child, token)
    poller.child_add(other, token)
    poller.post(token)
    assert sys.getrefcount(token) == before + 7
    let_go(child)
    kinds: list[int] = []
    while len(kinds) < 5:
        for event in poller.wait(LONG):
            kinds.append(event.kind)
            if event.kind == CHILD:
                child.returncode = os.waitstatus_to_exitcode(event.value)
    del event
    assert sorted(kinds) == [TIMER, TIMER, TIMER, CHILD, POST]
    assert sys.getrefcount(token) == before + 4
    stale(lambda: poller.timer_cancel(once))
    poller.timer_cancel(periodic)
    poller.signal_remove(signal.SIGUSR1)
    poller.child_remove(other)
    assert sys.getrefcount(token) == before
    let_go(other)
    other.wait(LONG)


def test_a_refused_source_lets_go_of_its_token(poller: Poller, handled: list[int]) -> None:
    token = Token()
    before = sys.getrefcount(token)
    poller.signal_add(signal.SIGUSR1)
    for refused in (
        lambda: poller.timer_add(-1, token=token),
        lambda: poller.signal_add(signal.SIGUSR1, token),
        lambda: poller.child_add(os.getpid(), token),
        lambda: poller.post(token, 2**63),
    ):
        with pytest.raises((OSError, ValueError, OverflowError)):
            refused()
    assert sys.getrefcount(token) == before


@pytest.mark.parametrize("how", ["close", "collect"])
def test_a_poller_lets_go_of_all_tokens(engine: str, how: str, handled: list[int]) -> None:
    poller = Poller(engine)
    token: Any = Token()
    token.poller = poller
    child = start("")
    poller.timer_add(60, token=token)
    poller.timer_add_at(time.time() + 60, token)
    poller.signal_add(signal.SIGUSR1, token)
    poller.child_add(child, token)
    poller.post(token)
    reference = weakref.ref(token)
    if how == "close":
        poller.close()
        token.poller = None
    del token, poller
    gc.collect()
    assert reference() is None
    let_go(child)
    assert child.wait(LONG) == 0
    raise_signal(signal.SIGUSR1)
    assert handled == [signal.SIGUSR1]


def test_a_closed_poller(poller: Poller) -> None:
    poller.close()
    for use in (
        lambda: poller.timer_add(1),
        lambda: poller.timer_add_at(1),
        lambda: poller.timer_set(1, 1),
        lambda: poller.timer_cancel(1),
        lambda: poller.signal_add(signal.SIGUSR1),
        lambda: poller.signal_remove(signal.SIGUSR1),
        lambda: poller.child_add(1),
        lambda: poller.child_remove(1),
        lambda: poller.post("late"),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_in_a_forked_child(poller: Poller, handled: list[int]) -> None:
    token = Token()
    before = sys.getrefcount(token)
    sibling = start("sys.exit(9)")
    timer = poller.timer_add(60, token="parent's")
    poller.signal_add(signal.SIGUSR1, "signal")
    poller.child_add(sibling, token)
    poller.post(token)

    def child() -> int:
        uses: list[Callable[[], object]] = [
            lambda: poller.timer_add(1),
            lambda: poller.timer_cancel(timer),
            lambda: poller.signal_add(signal.SIGUSR2),
            lambda: poller.post("child's"),
        ]
        for number, use in enumerate(uses):
            try:
                use()
                return 10 + number
            except OSError as error:
                if error.errno != 130:  # EOWNERDEAD
                    return 20 + number
        poller.after_fork()
        if sys.getrefcount(token) != before or poller.wait(0):
            return 30
        poller.timer_set(timer, 0)
        raise_signal(signal.SIGUSR1)
        poller.post("child's")
        seen: list[object] = []
        while len(seen) < 3:
            seen += tokens(poller)
        return 0 if set(seen) == {"parent's", "signal", "child's"} else 40

    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = child()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert tokens(poller) == [token]
    let_go(sibling)
    event = one(poller)
    sibling.returncode = os.waitstatus_to_exitcode(event.value)
    assert (event.token, sibling.returncode) == (token, 9)
    poller.after_fork()
    poller.timer_set(timer, 0)
    assert tokens(poller) == ["parent's"]


def test_a_finalizer_may_come_back(poller: Poller) -> None:
    class Last:
        def __del__(self) -> None:
            poller.post("last words")

    poller.timer_cancel(poller.timer_add(60, token=Last()))
    assert tokens(poller) == ["last words"]


def test_descriptors_are_as_before(poller: Poller, pipe: Pipe) -> None:
    """Their tokens and those of the others are numbered alike and don't meet."""
    poller.add(pipe.writer, WRITE, "descriptor")
    (first,) = poller.wait()
    poller.timer_add(0, token="timer")
    poller.post("post")
    seen: list[object] = []
    while not {"timer", "post"} <= set(seen):
        seen += tokens(poller)
    (second,) = poller.wait()
    assert first is second
    assert second.ready == WRITE
    poller.add(pipe.reader, READ)
    assert tokens(poller) == ["descriptor"]


def test_a_signal_that_is_watched_ends_a_forked_child(poller: Poller) -> None:
    poller.signal_add(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(LONG)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert poller.wait(0) == []
