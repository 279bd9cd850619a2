"""How a loop ends: stopped, closed, dropped, in a forked child, with the interpreter."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import weakref

import pytest
from conftest import LONG
from loops import ADDRESS, Recorder, Served, in_thread
from serving import Echo, ask, connect, read_all

from omnipoll import Connection, Loop


def test_a_stop_drains(engine: str) -> None:
    recorder = Recorder()
    with Served(engine, recorder) as served, connect(served.address) as client:
        assert ask(client, b"hello") == b"hello"
        served.loop.stop(LONG)
        assert read_all(client) == b"goodbye"
        client.close()
        served.join()
    assert recorder.calls == [("open", None), ("data", b"hello"), ("stop", True), ("close", None)]


class Reenter(Recorder):
    def on_open(self, connection: Connection) -> None:
        loop = connection.loop
        for call in (loop.run, loop.run_once, loop.wait, loop.fileno):
            with pytest.raises(RuntimeError, match="not in its calls"):
                call()
        self.calls.append(("refused", None))
        loop.close()
        assert loop.closed

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        assert error is not None
        self.calls.append(("close", error.errno))


def test_in_its_own_calls_a_loop_is_closed_when_they_return(engine: str) -> None:
    recorder = Reenter()
    loop = Loop(engine, handler=recorder)
    with connect(loop.listen(ADDRESS)):
        loop.run()
    assert recorder.calls == [("refused", None), ("stop", True), ("close", errno.ECANCELED)]
    with pytest.raises(ValueError, match="closed loop"):
        loop.run()
    loop.close()


def test_a_loop_that_is_closed_tells_its_handlers(engine: str) -> None:
    recorder = Recorder()
    with Loop(engine, handler=recorder) as loop, connect(loop.listen(ADDRESS)):
        while not recorder.calls:
            loop.run_once(LONG)
        loop.close()
    (what, error) = recorder.calls[-1]
    assert (what, error.errno) == ("close", errno.ECANCELED)


@pytest.mark.parametrize("by", ["its thread", "another"])
def test_a_loop_that_is_dropped_with_connections(
    engine: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is called."""
    recorder = Recorder()
    calls = recorder.calls
    loop = Loop(engine, handler=recorder)
    with connect(loop.listen(ADDRESS)) as client:
        while not calls:
            loop.run_once(LONG)
        recorder.loop = loop  # type: ignore[attr-defined]
        gone = weakref.ref(loop)
        gc.disable()
        try:
            del loop, recorder
            assert gone() is not None
            if by == "another":
                in_thread(gc.collect)()
            else:
                gc.collect()
            assert gone() is None
        finally:
            gc.enable()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert calls == [("open", None)]
    assert not caplog.records


def test_a_forked_child_is_told(engine: str) -> None:
    with Loop(engine, handler=Echo()) as loop:
        address = loop.listen(ADDRESS)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in (
                    loop.run,
                    loop.wait,
                    loop.stop,
                    lambda: loop.listen(ADDRESS),
                    lambda: loop.connect(address),
                ):
                    with pytest.raises(OSError) as caught:
                        call()
                    assert caught.value.errno == errno.EOWNERDEAD
                loop.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with connect(address) as client:
            client.sendall(b"still served")
            while not (events := [event.data for event in loop.wait(LONG) if event.data]):
                pass
            assert events == [b"still served"]


def test_the_interpreter_ends_while_a_loop_runs(engine: str) -> None:
    """In a daemon thread, and one that was never closed."""
    program = f"""
import threading, omnipoll
class Echo:
    def on_data(self, connection, data):
        connection.write(data)
made = threading.Event()
def serve():
    loop = omnipoll.Loop({engine!r}, handler=Echo())
    loop.listen("{ADDRESS}")
    made.set()
    loop.run()
threading.Thread(target=serve, daemon=True).start()
made.wait()
left = omnipoll.Loop({engine!r}, handler=Echo())
left.connect(left.listen("{ADDRESS}"))
for _ in range(3):
    left.run_once(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONG)
