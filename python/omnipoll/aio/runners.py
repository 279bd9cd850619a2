"""`run` and `new_event_loop`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from omnipoll.aio.event_loop import EventLoop

T = TypeVar("T")


def new_event_loop(engine: str | None = None) -> EventLoop:
    """Return a new loop on an engine, by default the best there is."""
    return EventLoop(engine)


if sys.version_info >= (3, 11):

    def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, engine: str | None = None) -> T:
        """Run a coroutine on a new loop, as asyncio.run() does, and return its result."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("omnipoll.run() cannot be called from a running event loop")
        with asyncio.Runner(debug=debug, loop_factory=partial(new_event_loop, engine)) as runner:
            return runner.run(main)

else:

    def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, engine: str | None = None) -> T:
        """Run a coroutine on a new loop, as asyncio.run() does, and return its result."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("omnipoll.run() cannot be called from a running event loop")
        if not asyncio.iscoroutine(main):
            raise ValueError(f"a coroutine was expected, got {main!r}")
        loop = new_event_loop(engine)
        try:
            asyncio.set_event_loop(loop)
            if debug is not None:
                loop.set_debug(debug)
            return loop.run_until_complete(main)
        finally:
            try:
                asyncio.runners._cancel_all_tasks(loop)  # type: ignore[attr-defined]
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
