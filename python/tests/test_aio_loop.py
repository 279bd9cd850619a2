"""The asyncio loop's core: callbacks, timers, threads, descriptors, running and closing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import socket
import threading
import weakref

import aio
import pytest
from conftest import LONG, Pair, Pipe

import omnipoll
from omnipoll.aio import EventLoop

loop = pytest.fixture(aio.open_loop)


def run_once(loop: EventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_program_runs(engine: str) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        assert loop.engine == engine
        names = await aio.converse(10)
        return [*names, await asyncio.wait_for(asyncio.create_task(asyncio.sleep(0, 10)), LONG)]

    assert omnipoll.run(main(), engine=engine) == list(range(11))


def test_callbacks_run_in_order_and_what_they_schedule_runs_in_the_next_turn(loop: EventLoop) -> None:
    calls: list[object] = []

    def first(name: str) -> None:
        calls.append(name)
        loop.call_soon(calls.append, "later")

    loop.call_soon(first, "first")
    loop.call_soon(lambda *args: calls.append(args), 1, 2, 3, 4)
    loop.call_soon(calls.append, "cancelled").cancel()
    run_once(loop)
    assert calls == ["first", (1, 2, 3, 4)]
    run_once(loop)
    assert calls[2:] == ["later"]


def test_a_callback_runs_in_its_context(loop: EventLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    own = contextvars.copy_context()
    own.run(variable.set, "own")
    loop.call_soon(lambda: seen.append(variable.get()), context=own)
    variable.set("current")
    loop.call_soon(lambda: seen.append(variable.get()))
    variable.set("changed")
    run_once(loop)
    assert seen == ["own", "current"]


def test_handles_are_asyncio_s_own(loop: EventLoop) -> None:
    handle = loop.call_soon(print, 1)
    timer = loop.call_later(LONG, print, 2)
    assert isinstance(handle, asyncio.Handle) and not isinstance(handle, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.TimerHandle)
    assert repr(handle) == repr(asyncio.Handle(print, (1,), loop))
    assert repr(timer) == repr(asyncio.TimerHandle(timer.when(), print, (2,), loop))
    assert timer < loop.call_later(2 * LONG, print) and timer == timer
    for each in (handle, timer):
        each.cancel()
        assert each.cancelled()
    assert repr(handle) == "<Handle cancelled>"


def test_a_handle_that_is_referred_to_is_not_used_again(loop: EventLoop) -> None:
    handle = loop.call_soon(int)
    seen = weakref.ref(loop.call_soon(int))
    run_once(loop)
    again = [loop.call_soon(str, index) for index in range(3)]
    assert handle not in again and seen() is None
    assert repr(handle) == "<Handle int()>"
    handle.cancel()
    assert not any(each.cancelled() for each in again)


def test_a_timer_that_is_referred_to_is_not_used_again(loop: EventLoop) -> None:
    timer = loop.call_at(1.5, int)
    loop.call_at(2.5, int)
    run_once(loop)
    again = [loop.call_later(LONG, str, index) for index in range(3)]
    assert not any(each is timer for each in again)
    assert timer.when() == 1.5 and repr(timer) == "<TimerHandle when=1.5 int()>"
    assert [repr(each) for each in again] == [
        repr(asyncio.TimerHandle(each.when(), str, (index,), loop)) for index, each in enumerate(again)
    ]
    assert not isinstance(loop.call_soon(int), asyncio.TimerHandle)


def test_timers_are_called_in_order_and_never_early(loop: EventLoop) -> None:
    calls: list[str] = []
    start = loop.time()
    for name, delay in (("c", 0.003), ("a", 0.001), ("b", 0.002)):
        loop.call_at(start + delay, calls.append, name)
    loop.call_later(0.0015, calls.append, "cancelled").cancel()
    loop.call_at(start + 0.004, loop.stop)
    loop.run_forever()
    assert calls == ["a", "b", "c"]
    assert loop.time() >= start + 0.004


def test_many_cancelled_timers_are_dropped(loop: EventLoop) -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    for _ in range(300):
        loop.call_later(LONG, print, argument).cancel()
    del argument
    assert gone() is None
    loop.call_later(0, loop.stop)
    loop.run_forever()


def test_another_thread_wakes_the_loop(loop: EventLoop) -> None:
    def call() -> None:
        for number in range(100):
            loop.call_soon_threadsafe(calls.append, number)
        loop.call_soon_threadsafe(loop.stop)

    calls: list[int] = []
    for _ in range(10):
        thread = threading.Thread(target=call)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
    assert calls == list(range(100)) * 10


def test_readers_and_writers(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair
    calls: list[str] = []

    def read(name: str) -> None:
        calls.append(name + ours.recv(10).decode())
        loop.stop()

    def write() -> None:
        calls.append("write")
        assert loop.remove_writer(ours)
        theirs.send(b"data")

    loop.add_reader(ours, read, "replaced ")
    loop.add_reader(ours.fileno(), read, "read ")
    loop.add_writer(ours, write)
    loop.run_forever()
    assert calls == ["write", "read data"]
    assert loop.remove_reader(ours)
    assert not loop.remove_reader(ours) and not loop.remove_writer(ours)
    with pytest.raises(ValueError):
        loop.add_reader(-1, print)


def test_a_hang_up_is_for_readers_and_writers(loop: EventLoop, pipe: Pipe) -> None:
    os.close(pipe.reader)
    loop.add_writer(pipe.writer, loop.stop)
    loop.run_forever()
    assert loop.remove_writer(pipe.writer)


def test_ready_descriptors_are_seen_while_callbacks_keep_coming(loop: EventLoop, pipe: Pipe) -> None:
    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    loop.add_reader(pipe.reader, loop.stop)
    loop.call_later(0.001, os.write, pipe.writer, b"data")
    loop.run_forever()


def test_exceptions_go_to_the_handler(loop: EventLoop) -> None:
    contexts: list[dict[str, object]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(int, "x", context=contextvars.copy_context())
    run_once(loop)
    (context,) = contexts
    assert isinstance(context["exception"], ValueError)
    theirs = repr(asyncio.Handle(int, ("x",), loop))
    assert context["message"] == "Exception in callback " + theirs[len("<Handle ") : -1]
    assert isinstance(context["handle"], asyncio.Handle)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_leaves_the_loop_and_the_rest_waits(loop: EventLoop, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind

    calls: list[int] = []
    loop.call_soon(leave)
    loop.call_soon(calls.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running() and calls == []
    run_once(loop)
    assert calls == [1]


def test_a_closed_loop_takes_nothing(loop: EventLoop) -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    loop.call_soon(print, argument)
    loop.call_later(LONG, print, argument)
    loop.close()
    loop.close()
    del argument
    assert gone() is None
    for call in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call(print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()


def test_a_loop_that_refers_to_itself_is_collected(engine: str) -> None:
    loop = omnipoll.new_event_loop(engine)
    loop.call_later(LONG, print, loop)
    loop.call_soon(print, loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


def test_a_closed_descriptor_disturbs_nobody(loop: EventLoop) -> None:
    one, other = socket.socketpair()
    with other:
        loop.add_reader(one, print)
        one.close()
        loop.call_later(0.001, loop.stop)
        loop.run_forever()


def test_the_policy_makes_loops(engine: str) -> None:
    loop = omnipoll.EventLoopPolicy(engine).new_event_loop()
    assert loop.engine == engine
    loop.close()
