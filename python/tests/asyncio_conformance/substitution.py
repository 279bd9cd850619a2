"""How a loop of another class takes the place of the standard library's, wherever the tests make one."""

from __future__ import annotations

import asyncio
import importlib
import selectors
from asyncio import unix_events
from typing import Any

# The tests ask for a loop on a selector; ours takes the engine that it stands for.
ENGINES = {"SelectSelector": "select", "PollSelector": "poll", "EpollSelector": "epoll"}

made = 0  # How many loops of the class the tests have made.


def load(name: str) -> type[asyncio.AbstractEventLoop]:
    """The class that is named so: module:class."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def substitute(loop_class: type[Any], engine: str) -> None:
    """Makes the names of the standard library's loop stand for this class; for a whole process."""

    class Substitute(loop_class):  # type: ignore[misc]
        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            global made
            made += 1
            wanted = engine
            if selector is not None:
                wanted = engine and ENGINES.get(type(selector).__name__, engine)
                selector.close()
            super().__init__(*([wanted] if wanted else []))

    Substitute.__name__ = Substitute.__qualname__ = loop_class.__name__
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, Substitute)
    # asyncio.new_event_loop() and the default policy make theirs by this; 3.14 has renamed the class.
    policy: Any = getattr(unix_events, "_UnixDefaultEventLoopPolicy", None)
    policy = policy or unix_events._DefaultEventLoopPolicy  # type: ignore[attr-defined]
    policy._loop_factory = Substitute
