"""The event loops that are compared: how each is made, and why one is not available."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Callable

OURS = "omnipoll"
ENGINES = ("epoll", "io_uring", "poll", "select")
OTHERS = ("asyncio", "uvloop", "rloop", "rsloop")
NAMES = (*OTHERS, *(f"{OURS}-{engine}" for engine in ENGINES))


def is_ours(name: str) -> bool:
    return name.startswith(OURS)


def maker(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop of this name; ImportError, AttributeError or OSError where it can't."""
    if name == "asyncio":
        return asyncio.new_event_loop
    package, _, engine = name.partition("-")
    make: Callable[..., Any] = importlib.import_module(package).new_event_loop
    return (lambda: make(engine=engine)) if engine else make


def version(name: str) -> str:
    """The version of the package that the loop comes from."""
    package = importlib.import_module(name.partition("-")[0])
    return str(getattr(package, "__version__", ""))


def why_absent(name: str) -> str:
    """Empty if a loop of this name can be made here."""
    try:
        maker(name)().close()
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
