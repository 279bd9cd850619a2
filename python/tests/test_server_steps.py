"""A server that is run step by step, in a thread and a loop of the program's."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import weakref
from typing import Any

import pytest
from conftest import LONG, stale
from loops import in_thread, wait_until_asleep
from serving import Echo, Recorder, ask, connect, read_all

import omnipoll
from omnipoll import Connection, Event, Server, Worker

ADDRESS = "127.0.0.1:0"


def started(engine: str, handler: Any, **options: Any) -> Server:
    server = Server(handler, ADDRESS, engine=engine, **options)
    server.start()
    return server


def finish(server: Server) -> None:
    """Ends it, in no more steps than there is something to do in."""
    server.stop(0)
    while server.run_once(LONG):
        pass


def test_clients_are_served_in_steps(engine: str) -> None:
    server = started(engine, Echo())
    assert server.run_once(0) is True

    def talk() -> None:
        with connect(server) as client:
            assert ask(client, b"hello") == b"hello"
        server.stop()

    join = in_thread(talk)
    while server.run_once():
        pass
    join()
    assert server.run_once() is False
    assert server.stats().total.accepted == 1


def test_an_outer_loop_holds_it(engine: str) -> None:
    server = started(engine, Echo())
    if engine in ("select", "poll"):
        with pytest.raises(OSError) as caught:
            server.fileno()
        assert caught.value.errno == errno.ENOTSUP
        return finish(server)
    with omnipoll.Poller() as outer, connect(server) as client:
        outer.add(server, omnipoll.READ)
        join = in_thread(lambda: ask(client, b"hello"))
        while server.stats().total.bytes_out < 5:
            assert outer.wait(LONG)
            assert server.run_once(0)
        assert join() == b"hello"
        server.stop(0)
        while server.run_once(0):
            assert outer.wait(LONG)


@pytest.mark.parametrize("model", ["cores", "thread", "fork", "prefork"])
def test_other_models_are_refused(model: str, engine: str) -> None:
    server = Server(Echo(), ADDRESS, model=model, engine=engine)
    with pytest.raises(OSError, match="REACTOR") as caught:
        server.start()
    assert caught.value.errno == errno.ENOTSUP


def test_a_server_starts_once(engine: str) -> None:
    server = Server(Echo(), ADDRESS, engine=engine)
    for too_early in (server.run_once, server.fileno):
        with pytest.raises(ValueError, match=r"start\(\) comes before"):
            too_early()
    server.start()
    for again in (server.start, server.run):
        with pytest.raises(ValueError, match="runs once"):
            again()
    with pytest.raises(ValueError, match="negative"):
        server.run_once(-1)
    finish(server)


def test_its_steps_are_those_of_one_thread(engine: str) -> None:
    server = started(engine, Echo())
    for step in (server.run_once, server.fileno):
        with pytest.raises(PermissionError, match="thread that has started it"):
            in_thread(step)()
    in_thread(lambda: server.stop(0))()
    while server.run_once(LONG):
        pass


def test_a_step_is_refused_in_its_calls(engine: str) -> None:
    refused: list[Connection] = []

    class Reenter(Echo):
        def on_open(self, connection: Connection) -> None:
            with pytest.raises(RuntimeError, match="not in its calls"):
                server.run_once()
            refused.append(connection)

    server = started(engine, Reenter())
    with connect(server):
        while not refused:
            assert server.run_once(LONG)
        finish(server)


@pytest.mark.parametrize("by", ["a handler", "a signal"])
def test_what_ends_a_program_comes_out_and_the_server_ends(engine: str, by: str) -> None:
    class Quit(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            if by == "a handler":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    handler = Quit()
    server = started(engine, handler)
    with connect(server) as client:
        client.sendall(b"x")
        with pytest.raises(KeyboardInterrupt):
            while server.run_once(LONG):
                pass
        while server.run_once(LONG):
            pass
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    handler.opened()
    assert handler.closed() is not None


def test_a_signal_s_handler_that_raises_ends_a_wait_and_the_server(engine: str) -> None:
    def interrupt(*_: Any) -> None:
        raise InterruptedError("by the program")

    server = started(engine, Echo())
    server.run_once(0)
    main = threading.get_ident()

    def send() -> None:
        wait_until_asleep()
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    join = in_thread(send)
    with pytest.raises(InterruptedError, match="by the program"):
        while True:
            server.run_once(LONG)
    join()
    signal.signal(signal.SIGUSR1, before)
    while server.run_once(LONG):
        pass


@pytest.mark.parametrize("by", ["its thread", "another"])
def test_a_server_that_is_dropped_resets_its_clients(
    engine: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No method is called."""

    class Ended(Recorder):
        def on_worker_end(self, worker: Worker) -> None:
            self.calls.put(("end", worker))

    handler = Ended()
    server = started(engine, handler)
    with connect(server) as client:
        while handler.calls.empty():
            server.run_once(LONG)
        connection = handler.opened()
        handler.server = server  # type: ignore[attr-defined]
        calls, gone = handler.calls, weakref.ref(server)
        del server, handler
        assert gone() is not None
        if by == "another":
            in_thread(gc.collect)()
        else:
            gc.collect()
        assert gone() is None
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert calls.empty()
    assert not caplog.records
    assert connection.fileno() == -1
    stale(lambda: connection.write(b"x"))


class Ticking(Echo):
    """Has a timer, and keeps what comes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.workers: list[Worker] = []
        self.events: list[tuple[Worker, Any]] = []

    def on_worker_start(self, worker: Worker) -> None:
        worker.poller.timer_add(0.001, token=self.name)
        self.workers.append(worker)

    def on_event(self, worker: Worker, event: Event) -> None:
        self.events.append((worker, event.token))

    def on_worker_end(self, worker: Worker) -> None:
        self.workers.append(worker)


def test_servers_of_one_thread_have_a_worker_each(engine: str) -> None:
    one, other = Ticking("one"), Ticking("other")
    servers = [started(engine, one), started(engine, other)]
    for handler, server in zip((one, other), servers):
        while not handler.events:
            assert server.run_once(LONG)
        assert handler.events == [(handler.workers[0], handler.name)]
    for server in servers:
        finish(server)
    for handler in (one, other):
        begun, ended = handler.workers
        assert begun is ended
        with pytest.raises(ValueError, match="closed"):
            begun.poller.post(1)


def test_a_worker_of_a_dropped_server_is_gone(engine: str) -> None:
    handler = Ticking("dropped")
    server = started(engine, handler)
    hand_over = [server]
    del server
    in_thread(hand_over.clear)()
    (worker,) = handler.workers
    with pytest.raises(ValueError, match="closed"):
        worker.poller.post(1)
    again = started(engine, handler)
    assert handler.workers[1] is not worker
    finish(again)


def test_what_on_worker_start_raises_comes_out_of_start(engine: str) -> None:
    class Broken(Echo):
        def on_worker_start(self, worker: Worker) -> None:
            raise ZeroDivisionError("on purpose")

    server = Server(Broken(), ADDRESS, engine=engine)
    address = server.addresses[0]
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        server.start()
    with pytest.raises(ValueError, match="comes before"):
        server.run_once()
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_a_forked_child_is_told(engine: str) -> None:
    server = started(engine, Echo())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(OSError) as caught:
                server.run_once(0)
            assert caught.value.errno == errno.EOWNERDEAD
            del server
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    join = in_thread(lambda: talk_and_stop(server))
    while server.run_once(LONG):
        pass
    join()


def talk_and_stop(server: Server) -> None:
    with connect(server) as client:
        assert ask(client, b"still served") == b"still served"
        server.stop()
        client.shutdown(1)
        assert read_all(client) == b""
