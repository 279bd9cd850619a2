"""What the tests of loops share: handlers, and loops that run in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conftest import LONG

import omnipoll
from omnipoll import Connection, Event, Loop, LoopEvent

ADDRESS = "127.0.0.1:0"


class Stop:
    """Stops its loop with the first event of its own."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, loop: Loop, event: Event) -> None:
        self.events.append(event)
        loop.stop()


class Recorder:
    """Queues nothing and answers nothing: keeps the names of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_open(self, connection: Connection) -> None:
        self.calls.append(("open", connection.token))

    def on_data(self, connection: Connection, data: bytes) -> None:
        self.calls.append(("data", data))
        connection.write(data)

    def on_stop(self, connection: Connection) -> None:
        self.calls.append(("stop", connection.is_stopping))
        connection.write(b"goodbye")
        connection.close()

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        self.calls.append(("close", error))


def pulled(loop: Loop, kind: int) -> LoopEvent:
    """The first event of that kind; a DATA is answered, and an ENDED closed."""
    while True:
        events = loop.wait(LONG)
        assert events, f"no event of kind {kind} in time"
        for event in events:
            if event.kind == omnipoll.DATA:
                event.connection.write(event.data)
            elif event.kind == omnipoll.ENDED:
                event.connection.close()
        for event in events:
            if event.kind == kind:
                return event


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; what is returned waits for it, and returns or raises what it has."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as raised:
            result.append(raised)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(LONG)
        assert not thread.is_alive()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    return join


def wait_until_asleep() -> None:
    """Until the main thread, which has the interpreter whenever it wants it, has slept for long."""
    stat = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")
    asleep = 0
    while asleep < 100:
        asleep = asleep + 1 if ") S " in stat.read_text() else 0


class Served:
    """A loop that runs by handler in a thread of its own."""

    def __init__(self, engine: str, handler: Any, **options: Any) -> None:
        self.made = threading.Event()
        self.engine, self.handler, self.options = engine, handler, options
        self.join = in_thread(self.run)
        assert self.made.wait(LONG)

    def run(self) -> None:
        with Loop(self.engine, handler=self.handler, **self.options) as self.loop:
            self.address = self.loop.listen(ADDRESS)
            self.made.set()
            self.loop.run()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):
            self.loop.stop(0)
        self.join()
