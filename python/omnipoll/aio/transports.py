"""The transports: the native ones, with what is called once for a connection."""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from asyncio import constants, futures, trsock
from asyncio.log import logger
from asyncio.transports import _FlowControlMixin
from typing import TYPE_CHECKING, Any

from omnipoll import _native
from omnipoll.aio import streams

if TYPE_CHECKING:
    from omnipoll.aio.event_loop import EventLoop


class StreamTransport(_native.StreamTransport):
    """The transport of a connected stream socket."""

    __slots__ = ()

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    # An asyncio.Transport; sendfile() without the system call asks for this mixin.
    _asyncio_class = _FlowControlMixin

    def __repr__(self) -> str:
        """Return its state in words."""
        return _describe(self)

    # Native, and so is what it finds out first: whether there is anything to do.
    __del__ = _native.Transport._collect


class _Datagrams(_FlowControlMixin, asyncio.DatagramTransport):
    """What it is for isinstance(): the standard library's is a Transport, too, though it says so nowhere."""


class DatagramTransport(_native.DatagramTransport):
    """The transport of a socket of datagrams."""

    __slots__ = ()

    _asyncio_class = _Datagrams

    def __repr__(self) -> str:
        """Return its state in words."""
        return _describe(self)

    # Native, and so is what it finds out first: whether there is anything to do.
    __del__ = _native.Transport._collect


def make_datagram(
    loop: EventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    address: Any,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
) -> DatagramTransport:
    """Make a transport, whose protocol's `connection_made()` is called in the loop's next turn."""
    transport = DatagramTransport(loop, sock, protocol, _complete(extra, sock), address)
    _start(loop, transport, protocol, waiter)
    return transport


def make_stream(
    loop: EventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: Any,
) -> StreamTransport:
    """Make a transport, whose protocol's `connection_made()` is called in the loop's next turn."""
    streams.adopt(loop, protocol)
    transport = StreamTransport(loop, sock, protocol, _complete(extra, sock))
    if server is not None:
        attach(server, transport)
        transport._server = server
    _start(loop, transport, protocol, waiter)
    return transport


def _start(loop: Any, transport: Any, protocol: Any, waiter: asyncio.Future[None] | None) -> None:
    loop._set_transport(transport._sock_fd, transport)
    loop.call_soon(protocol.connection_made, transport)
    loop.call_soon(transport._start_reading)
    if waiter is not None:
        loop.call_soon(futures._set_result_unless_cancelled, waiter, None)  # type: ignore[attr-defined]


def make_socket(kind: tuple[int, int, int], fd: int | None) -> socket.socket:
    """Make an object for an accepted connection's socket, or a closed one."""
    sock = socket.socket(*kind, fd)
    if fd is None:
        sock.close()
    else:
        sock.setblocking(False)
    return sock


def _complete(extra: dict[str, Any] | None, sock: socket.socket) -> dict[str, Any]:
    if extra is None:
        extra = {}
    extra["socket"] = trsock.TransportSocket(sock)
    try:
        extra["sockname"] = sock.getsockname()
    except OSError:
        extra["sockname"] = None
    if "peername" not in extra:
        try:
            extra["peername"] = sock.getpeername()
        except OSError:
            extra["peername"] = None
    return extra


if sys.version_info >= (3, 13):

    def attach(server: Any, transport: object) -> None:
        """Have the server count the transport."""
        server._attach(transport)

    def detach(server: Any, transport: object) -> None:
        """Undo attach()."""
        server._detach(transport)

else:

    def attach(server: Any, transport: object) -> None:
        """Have the server count the transport."""
        server._attach()

    def detach(server: Any, transport: object) -> None:
        """Undo attach()."""
        server._detach()


def log(transport: object, words: str) -> None:
    """Log what a transport does, in debug mode."""
    logger.debug("%r %s", transport, words, exc_info=sys.exc_info()[0] is not None)


def _describe(transport: Any) -> str:
    words = [type(transport).__name__]
    if transport._sock is None:
        words.append("closed")
    elif transport._closing:
        words.append("closing")
    words.append(f"fd={transport._sock_fd}")
    loop = transport._loop
    if loop is not None and not loop.is_closed():
        reads, writes = ("polling" if waits else "idle" for waits in transport._waits)
        words.append(f"read={reads}")
        words.append(f"write=<{writes}, bufsize={transport.get_write_buffer_size()}>")
    return f"<{' '.join(words)}>"


def collect(transport: Any) -> None:
    """Warn of a transport that was never closed, and close its socket."""
    sock = transport._sock
    warnings.warn(f"unclosed transport {transport!r}", ResourceWarning, stacklevel=2, source=transport)
    sock.close()
    server, transport._server = transport._server, None
    if server is not None:
        detach(server, transport)  # Once: whatever has the warning may keep the transport, and end it.
