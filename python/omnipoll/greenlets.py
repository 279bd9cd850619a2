"""Programs in which gevent or eventlet has put greenlets in the place of threads and waits."""

from __future__ import annotations

import sys
import warnings

__all__ = ["check"]

MODULES = ("select", "selectors", "socket", "thread", "threading")


def check() -> None:
    """Warns (RuntimeWarning) that a wait of ours is a system call to the whole thread."""
    name = patcher()
    if name is None:
        return
    words = (
        f"{name} has patched this program, and omnipoll does not yield to it: while it waits or serves, "
        f"every other greenlet of its thread stands still. Use it in a process of its own, or unpatched"
    )
    warnings.warn(words, RuntimeWarning, stacklevel=_level())


def patcher() -> str | None:
    """What has patched the standard library, if anything."""
    for name, module, function in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        is_patched = getattr(sys.modules.get(module), function, None)
        if is_patched is not None and any(map(is_patched, MODULES)):
            return name
    return None


def _level() -> int:
    """How far it is to the caller's own line: past what is in this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith("omnipoll."):
        level += 1
    return level
