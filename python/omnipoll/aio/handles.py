"""What handles are besides called and cancelled: the standard library's own code, for the native classes.

A native handle has the attributes that this code asks for.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from asyncio import base_events, format_helpers
from typing import Any

from omnipoll import _native


def adopt() -> None:
    """Gives the native classes the standard library's methods."""
    for ours, theirs in ((_native.Handle, asyncio.Handle), (_native.TimerHandle, asyncio.TimerHandle)):
        ours._asyncio_class = theirs
        for name in ("__repr__", "_repr_info", "get_context"):
            if name in vars(theirs):
                setattr(ours, name, vars(theirs)[name])
    for name in ("__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__"):
        setattr(_native.TimerHandle, name, vars(asyncio.TimerHandle)[name])


def source_traceback() -> traceback.StackSummary:
    """Where a handle is made: the frame that has called the loop, and those around it."""
    return format_helpers.extract_stack(sys._getframe(1))


def failed(handle: Any, exception: BaseException) -> None:
    """Reports what a callback has raised."""
    callback, args = handle._callback, handle._args
    if sys.version_info >= (3, 12) and _FORMAT_TAKES_DEBUG:
        words = format_helpers._format_callback_source(callback, args, debug=handle._loop.get_debug())
    else:
        words = format_helpers._format_callback_source(callback, args)
    context = {"message": f"Exception in callback {words}", "exception": exception, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    handle._loop.call_exception_handler(context)


def took(handle: Any, seconds: float) -> None:
    """Reports a callback that has kept the loop for long."""
    words = base_events._format_handle(handle)  # type: ignore[attr-defined]
    base_events.logger.warning("Executing %s took %.3f seconds", words, seconds)  # type: ignore[attr-defined]


_FORMAT_TAKES_DEBUG = "debug" in (format_helpers._format_callback_source.__kwdefaults__ or ())

adopt()
