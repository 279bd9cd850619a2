"""Timers of a poller: after a delay, periodic, and by the wall clock."""

from __future__ import annotations

import datetime
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conftest import LONG, SHORT, Token, one, stale, tokens

from omnipoll import TIMER, Poller


@pytest.mark.parametrize("delay", [0, 0.0, 1e-9, 0.001, 0.02])
def test_a_timer_is_never_early(poller: Poller, delay: float) -> None:
    begin = time.monotonic_ns()
    poller.timer_add(delay, token="now")
    event = one(poller)
    assert time.monotonic_ns() - begin >= delay * 1e9
    assert (event.kind, event.token, event.value, event.ready, event.count) == (TIMER, "now", 1, 0, 1)
    assert poller.wait(SHORT) == []


def test_the_soonest_comes_first(poller: Poller) -> None:
    """By their deadlines, of which it is known between which times they are."""
    deadlines = {}
    for name, delay in [("late", 0.003), ("early", 0.001), ("middle", 0.002), ("middle again", 0.002)]:
        begin = time.monotonic()
        poller.timer_add(delay, token=name)
        deadlines[name] = (begin + delay, time.monotonic() + delay)
    seen: list[Any] = []
    while len(seen) < 4:
        seen += tokens(poller)
    assert set(seen) == set(deadlines)
    for earlier, later in zip(seen, seen[1:]):
        assert deadlines[earlier][0] <= deadlines[later][1]


def test_a_period_goes_on_and_a_late_one_is_reported_once(poller: Poller) -> None:
    begin = time.monotonic()
    timer = poller.timer_add(0, period=0.001, token="tick")
    periods = 0
    while periods < 20:
        event = one(poller)
        assert (event.kind, event.token) == (TIMER, "tick")
        periods += event.value
    assert time.monotonic() - begin >= 0.019
    last = time.monotonic()
    while time.monotonic() - last < 0.02:
        pass
    assert one(poller).value > 1
    poller.timer_cancel(timer)
    assert poller.wait(SHORT) == []


def test_without_a_token_it_is_the_id(poller: Poller) -> None:
    first, second = poller.timer_add(0), poller.timer_add_at(0)
    assert first != second
    assert set(tokens(poller) + tokens(poller, 0)) == {first, second}


def test_a_cancelled_timer_is_not_reported(poller: Poller) -> None:
    timer = poller.timer_add(0, token="cancelled")
    poller.timer_add(0, token="kept")
    poller.timer_cancel(timer)
    assert tokens(poller) == ["kept"]
    stale(lambda: poller.timer_cancel(timer))
    stale(lambda: poller.timer_set(timer, 1))


def test_an_expired_timer_is_not_cancelled(poller: Poller) -> None:
    arms: list[Callable[[], int]] = [lambda: poller.timer_add(0), lambda: poller.timer_add_at(1)]
    for arm in arms:
        timer = arm()
        one(poller)
        stale(lambda timer=timer: poller.timer_cancel(timer))  # type: ignore[misc]
        stale(lambda timer=timer: poller.timer_set(timer, 1))  # type: ignore[misc]
    stale(lambda: poller.timer_cancel(0))
    stale(lambda: poller.timer_cancel(2**64 - 1))


def test_an_expired_timer_is_set_again(poller: Poller) -> None:
    token = Token()
    timer = poller.timer_add(0, token=token)
    for _ in range(3):
        assert one(poller).token is token
        assert "others" not in repr(poller)
        poller.timer_set(timer, 60)
        assert "1 others" in repr(poller)
        poller.timer_set(timer, 0)
    assert one(poller).token is token
    poller.timer_set(timer, 0, 0.001)
    assert [one(poller).token, one(poller).token] == [token, token]
    poller.timer_set(timer, 0)
    while poller.wait(SHORT):
        pass
    let_go = weakref.ref(token)
    del token
    stale(lambda: poller.timer_cancel(timer))
    assert let_go() is None


def test_an_expired_wall_clock_timer_is_stale(poller: Poller) -> None:
    timer = poller.timer_add_at(1)
    one(poller)
    stale(lambda: poller.timer_set(timer, 1))


class LastWords(Token):
    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


def expire(poller: Poller, others: int, armed: int = 0) -> None:
    """So many others, after those that are armed already."""
    for _ in range(others):
        poller.timer_add(0)
    left = others + armed
    while left > 0:
        events = poller.wait(LONG)
        assert events
        left -= len(events)


def test_an_expired_timer_is_forgotten_after_many_others() -> None:
    with Poller() as poller:
        gone: list[str] = []
        first = poller.timer_add(0, token=LastWords(lambda: gone.append("first")))
        second = poller.timer_add(0, token=LastWords(lambda: gone.append("second")))
        expire(poller, 65_534, armed=2)
        poller.timer_set(first, 0)
        expire(poller, 0, armed=1)
        assert gone == []
        expire(poller, 1)
        assert gone == ["second"]
        stale(lambda: poller.timer_set(second, 60))
        poller.timer_set(first, 60)


def test_a_timer_may_be_set_before_its_event_is_made() -> None:
    """By another thread, or, as here, by the finalizer of a token that is dropped in between."""
    with Poller() as poller:
        poller.timer_add(0, token=LastWords(lambda: poller.timer_set(later, 60)))
        expire(poller, 65_535, armed=1)
        poller.timer_add(0)
        later = poller.timer_add(0, token="later")
        assert tokens(poller)[1:] == ["later"]
        assert "1 others" in repr(poller)
        poller.timer_set(later, 0)
        assert tokens(poller) == ["later"]


@pytest.mark.parametrize("before", [None, 60])
@pytest.mark.parametrize("after", [None, 0.001])
def test_a_timer_can_be_moved(poller: Poller, before: float | None, after: float | None) -> None:
    timer = poller.timer_add(60, before, token="moved")
    assert poller.wait(0) == []
    poller.timer_set(timer, 0.001, after)
    assert one(poller).token == "moved"
    if after is None:
        assert poller.wait(SHORT) == []
        stale(lambda: poller.timer_cancel(timer))
    else:
        assert one(poller).token == "moved"
        poller.timer_cancel(timer)
    assert "others" not in repr(poller)


def test_a_refused_move_changes_nothing(poller: Poller) -> None:
    timer = poller.timer_add(0, token="still")
    for delay, period in [(-1, None), (1, 0), (1, -1), (math.nan, None)]:
        with pytest.raises(ValueError):
            poller.timer_set(timer, delay, period)
    assert tokens(poller) == ["still"]


@pytest.mark.parametrize(
    ("delay", "error"),
    [
        (-1, ValueError),
        (-0.001, ValueError),
        (math.nan, ValueError),
        (math.inf, OverflowError),
        (2**63, OverflowError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_delay(poller: Poller, delay: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        poller.timer_add(delay)
    if delay is not None:
        with pytest.raises(error):
            poller.timer_add(1, delay)
    with pytest.raises(ValueError, match="period"):
        poller.timer_add(1, 0)
    assert "others" not in repr(poller)


def test_a_time_of_the_wall_clock(poller: Poller) -> None:
    when = time.time() + 0.02
    poller.timer_add_at(when, "seconds")
    event = one(poller)
    assert time.time() >= when
    assert (event.kind, event.token, event.value) == (TIMER, "seconds", 1)


@pytest.mark.parametrize(
    "zone", [None, datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=5))]
)
def test_a_datetime(poller: Poller, zone: datetime.tzinfo | None) -> None:
    when = datetime.datetime.now(zone) + datetime.timedelta(milliseconds=20)
    poller.timer_add_at(when, "date")
    poller.timer_add_at(when + datetime.timedelta(hours=1), "later")
    assert tokens(poller) == ["date"]
    assert datetime.datetime.now(zone) >= when


def test_a_time_that_is_past(poller: Poller) -> None:
    for when in (0, -1e9, datetime.datetime(1969, 7, 20, tzinfo=datetime.timezone.utc), time.time() - 1):
        poller.timer_add_at(when, when)
        assert tokens(poller) == [when]


def test_what_is_no_time(poller: Poller) -> None:
    errors: list[tuple[Any, type[Exception]]] = [
        (math.nan, ValueError),
        (math.inf, OverflowError),
        ("noon", TypeError),
        (datetime.date(2020, 1, 1), TypeError),
    ]
    for when, error in errors:
        with pytest.raises(error):
            poller.timer_add_at(when)
    assert "others" not in repr(poller)


def test_a_wall_clock_timer_is_cancelled_and_not_moved(poller: Poller) -> None:
    timer = poller.timer_add_at(time.time() + 60)
    for period in (None, 1):
        with pytest.raises(ValueError, match="wall"):
            poller.timer_set(timer, 0, period)
    poller.timer_cancel(timer)
    stale(lambda: poller.timer_cancel(timer))


def test_many_timers(poller: Poller) -> None:
    count = 5000
    for number in range(count):
        poller.timer_add(0, token=number)
    seen: list[object] = []
    while len(seen) < count:
        seen += tokens(poller)
    assert seen == list(range(count))
    assert "others" not in repr(poller)


def test_a_timer_from_another_thread_counts_for_the_wait_under_way(poller: Poller) -> None:
    thread = threading.Timer(SHORT, lambda: poller.timer_add(0.001, token="soon"))
    thread.start()
    assert tokens(poller) == ["soon"]
    thread.join()
