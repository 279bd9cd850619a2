"""What can be seen of a handler before it serves: mistakes that would otherwise pass in silence."""

from __future__ import annotations

import difflib
import inspect
from types import FunctionType

__all__ = ["check"]

METHODS = (
    "on_open",
    "on_data",
    "on_end",
    "on_drain",
    "on_post",
    "on_timeout",
    "on_timer",
    "on_stop",
    "on_close",
    "on_datagram",
    "on_datagram_error",
    "on_worker_start",
    "on_worker_end",
    "on_event",
)


def check(handler: object, caller: str) -> None:
    """Raises TypeError for what can't be meant as a handler. caller: what calls it, such as "a server"."""
    if handler is None:
        raise TypeError("a handler is an object with methods such as on_data, not None")
    has = [name for name in METHODS if _may_be_method(handler, name)]
    for name in has:
        _check_method(handler, name, caller)
    for name in dir(handler):
        if name.startswith("on_") and name not in METHODS and _may_be_method(handler, name):
            _check_stranger(name, has, caller)


def _may_be_method(handler: object, name: str) -> bool:
    """Whether there is something of that name, asked without running a property."""
    return inspect.getattr_static(handler, name, None) is not None


def _check_method(handler: object, name: str, caller: str) -> None:
    found = inspect.getattr_static(handler, name)
    if isinstance(handler, type) and isinstance(found, FunctionType):
        word = handler.__name__
        raise TypeError(f"a handler is an instance, and {word} is a class: use {word}() instead")
    method = getattr(handler, name)
    if method is None:
        return
    if not callable(method):
        raise TypeError(f"the handler's {name} can't be called: it is {method!r}")
    call = type(method).__call__  # An object that is called may be async, too.
    if any(map(inspect.iscoroutinefunction, (method, call))) or inspect.isasyncgenfunction(method):
        raise TypeError(f"the handler's {name} is async, and {caller} does not await it: use a plain def")


def _check_stranger(name: str, has: list[str], caller: str) -> None:
    """A handler may have callbacks of its own, but hardly one that is spelt like one of ours."""
    for meant in difflib.get_close_matches(name, METHODS, cutoff=0.8):
        if meant not in has:
            raise TypeError(f"{caller} does not call the handler's {name}: did you mean {meant}?")
    if not {"on_data", "on_datagram", "on_event"}.intersection(has):
        known = ", ".join(METHODS)
        raise TypeError(f"{caller} does not call the handler's {name}, only {known}: did you mean on_data?")
