"""Servers: how a connection that the native loop has accepted gets its protocol and transport."""

from __future__ import annotations

import asyncio
import errno
from asyncio import constants, trsock
from asyncio.log import logger
from typing import TYPE_CHECKING, Any, Callable

from omnipoll import _native
from omnipoll.aio import streams, transports

if TYPE_CHECKING:
    import socket

    from omnipoll.aio.event_loop import EventLoop

# A shortage, which keeps the listener readable: it isn't accepted from for a while.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def start(
    loop: EventLoop,
    factory: Callable[[], asyncio.BaseProtocol],
    listener: socket.socket,
    server: Any,
    backlog: int,
) -> None:
    """Have the loop accept, until its reader for the listener is removed."""

    def accepted(connection: _native.AcceptedSocket) -> None:
        if loop._debug:
            logger.debug("%r got a new connection from %r", server, connection.peername)
        protocol = None
        try:
            protocol = factory()
            streams.adopt(loop, protocol)
            transport = transports.StreamTransport(loop, connection, protocol)
            if server is not None:
                transports.attach(server, transport)
                transport._server = server
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            connection.close()
            if loop._debug:
                report = {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                }
                if protocol is not None:
                    report["protocol"] = protocol
                loop.call_exception_handler(report)
            return
        connection.begin(transport, protocol)

    def failed(exc: OSError) -> None:
        if exc.errno not in _SHORTAGES:
            message = "Exception in accepting from a listener"
            loop.call_exception_handler({"message": message, "exception": exc, "server": server})
            return
        loop.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": exc,
                "socket": trsock.TransportSocket(listener),
            }
        )
        loop._remove_reader(listener.fileno())
        loop.call_later(constants.ACCEPT_RETRY_DELAY, again)

    def again() -> None:
        if listener.fileno() >= 0:
            start(loop, factory, listener, server, backlog)

    kind = (int(listener.family), int(listener.type), listener.proto)
    _native.Acceptor(listener, kind, backlog, accepted, failed).start(loop)
