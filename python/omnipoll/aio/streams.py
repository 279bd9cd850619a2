"""Streams: the standard library's, whose readers and writers get native methods.

A connection's StreamReader and StreamWriter are what the standard library has made. Before
connection_made() the reader gets the class below, and a server's writer before the program sees it.
What they are is in their attributes, where it was; the methods do what the standard library's do.

A program's own subclasses, of the protocol too, stay as they are, and so does all in debug mode, and on a
Python whose streams use other attributes than the native methods know.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omnipoll import _native

if TYPE_CHECKING:
    from omnipoll.aio.event_loop import EventLoop


class StreamReader(asyncio.StreamReader):
    """A reader with native methods: read, readexactly, readuntil, readline."""

    __slots__ = ()


class StreamWriter(asyncio.StreamWriter):
    """A writer with native methods: write, drain."""

    __slots__ = ()


def adopt(loop: EventLoop, protocol: Any) -> None:
    """Give the reader of a protocol that has no connection yet its class."""
    if type(protocol) is not asyncio.StreamReaderProtocol or loop._debug or not _IS_KNOWN:
        return
    _adopt(protocol)


def _adopt(protocol: Any) -> None:
    reader = protocol._stream_reader
    if type(reader) is not asyncio.StreamReader or vars(reader).keys() != _ATTRIBUTES:
        return
    reader.__class__ = StreamReader
    callback = protocol._client_connected_cb
    if callback is not None:
        protocol._client_connected_cb = _with_writer(callback)


def _with_writer(callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def connected(reader: Any, writer: Any) -> Any:
        writer._protocol._client_connected_cb = callback
        if type(writer) is asyncio.StreamWriter:
            writer.__class__ = StreamWriter
        return callback(reader, writer)

    return connected


def line_failed(reader: Any, error: BaseException) -> bytes:
    """Do what readline() does when readuntil() has failed."""
    try:
        raise error
    except asyncio.IncompleteReadError as e:
        return e.partial
    except asyncio.LimitOverrunError as e:
        if reader._buffer.startswith(b"\n", e.consumed):
            del reader._buffer[: e.consumed + 1]
        else:
            reader._buffer.clear()
        reader._maybe_resume_transport()
        raise ValueError(e.args[0])  # noqa: B904  (as the standard library does)


# ---- The standard library's own, as far as it is known ---------------------------------------------------

_ATTRIBUTES = frozenset(
    ("_limit", "_loop", "_buffer", "_eof", "_waiter", "_exception", "_transport", "_paused")
)

# Those that each function uses which has a native counterpart.
_USED = {
    "StreamReader.read": "_exception _limit _buffer _eof _wait_for_data _maybe_resume_transport",
    "StreamReader.readexactly": "_exception _buffer _eof _wait_for_data _maybe_resume_transport",
    "StreamReader.readuntil": "_exception _buffer _limit _eof _wait_for_data _maybe_resume_transport",
    "StreamReader.readline": "_buffer _maybe_resume_transport",
    "StreamReader._wait_for_data": "_waiter _eof _paused _transport _loop",
    "StreamReader._maybe_resume_transport": "_paused _buffer _limit _transport",
    "StreamReader._wakeup_waiter": "_waiter",
    "StreamReader.feed_data": "_eof _buffer _wakeup_waiter _transport _paused _limit",
    "StreamReader.exception": "_exception",
    "StreamWriter.write": "_transport",
    "StreamWriter.drain": "_reader _transport _protocol _drain_helper",
    "StreamReaderProtocol.data_received": "_stream_reader",
    "StreamReaderProtocol._stream_reader.fget": "_stream_reader_wr",
}


def _uses(path: str) -> set[str]:
    """The private names that a function uses; none when there is no such function of Python's."""
    try:
        code = operator.attrgetter(f"{path}.__code__")(asyncio)
    except AttributeError:
        return set()
    return {name for name in code.co_names if name.startswith("_")}


_IS_KNOWN = all(_uses(path) == set(names.split()) for path, names in _USED.items())

_native._install_streams(StreamReader, StreamWriter, asyncio.StreamReaderProtocol)
