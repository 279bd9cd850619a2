"""`EventLoop`: the native loop, and around it the standard library's."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from omnipoll import _native
from omnipoll.aio import (
    accepting,
    children,
    handles,  # noqa: F401  (completes the native ones)
    streams,
    tls,
    transports,
)
from omnipoll.aio.socket_calls import SocketCalls

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


class EventLoop(SocketCalls, asyncio.SelectorEventLoop):
    """An asyncio event loop on one of omnipoll's engines, by default the best there is."""

    if TYPE_CHECKING:
        # The standard library's, which its annotations leave out.
        _csock: socket.socket | None

        def _child_watcher_callback(self, pid: int, returncode: int, transp: object) -> None: ...
        def _add_reader(self, fd: FileDescriptorLike, callback: object, *args: object) -> object: ...
        def _close_self_pipe(self) -> None: ...
        def _make_self_pipe(self) -> None: ...
        def _ensure_fd_no_transport(self, fd: object) -> None: ...
        def _remove_reader(self, fd: FileDescriptorLike) -> bool: ...

    def __init__(self, engine: str | None = None) -> None:
        """Make a loop on an engine: `OSError` when it isn't available, `ValueError` for no engine's name."""
        self._open(engine)
        self._tls_buffer = _native.TlsBuffer()
        super().__init__(_Watched(self))  # type: ignore[arg-type]
        self._transports = _Transports(self)
        self._pidfds: set[int] = set()

    def _after_fork(self) -> None:
        """Go on in a forked child: the socket to which signals are written is its parent's."""
        self._close_self_pipe()
        self._make_self_pipe()
        assert self._csock is not None
        if self._thread_id == threading.main_thread().ident:
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Close the loop, which must not be running: what waits is dropped."""
        super().close()
        self._release()
        while self._pidfds:
            os.close(self._pidfds.pop())

    def _add_callback(self, handle: asyncio.Handle) -> None:
        """Have a handle that the standard library has made called."""
        if not handle._cancelled:
            self.call_soon(_call, handle)

    # ---- Transports: called by the standard library's code -------------------------------------------

    def _start_serving(  # type: ignore[no-untyped-def]
        self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, *timeouts
    ):
        if not sslcontext and _is_socket(sock):
            return accepting.start(self, protocol_factory, sock, server, backlog)
        # With TLS a task for each connection, which waits for its handshake.
        return super()._start_serving(  # type: ignore[misc]
            protocol_factory, sock, sslcontext, server, backlog, *timeouts
        )

    def _make_socket_transport(  # type: ignore[no-untyped-def]
        self, sock, protocol, waiter=None, *, extra=None, server=None
    ):
        if not _is_socket(sock):
            return super()._make_socket_transport(  # type: ignore[misc]
                sock, protocol, waiter, extra=extra, server=server
            )
        self._ensure_fd_no_transport(sock)
        return transports.make_stream(self, sock, protocol, waiter, extra, server)

    def _make_datagram_transport(  # type: ignore[no-untyped-def]
        self, sock, protocol, address=None, waiter=None, extra=None
    ):
        if not _is_socket(sock):
            return super()._make_datagram_transport(  # type: ignore[misc]
                sock, protocol, address, waiter, extra
            )
        self._ensure_fd_no_transport(sock)
        return transports.make_datagram(self, sock, protocol, address, waiter, extra)

    def _make_ssl_transport(  # type: ignore[no-untyped-def]
        self,
        rawsock,
        protocol,
        sslcontext,
        waiter=None,
        *,
        server_side=False,
        server_hostname=None,
        extra=None,
        server=None,
        **timeouts,
    ):
        streams.adopt(self, protocol)
        encrypting = tls.Protocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        self._ensure_fd_no_transport(rawsock)
        transports.make_stream(self, rawsock, encrypting, None, extra, server)
        return encrypting._app_transport

    if tls.IS_NATIVE:

        async def start_tls(  # type: ignore[no-untyped-def]
            self,
            transport,
            protocol,
            sslcontext,
            *,
            server_side=False,
            server_hostname=None,
            ssl_handshake_timeout=None,
            ssl_shutdown_timeout=None,
        ):
            """Put TLS between a transport and its protocol, and return the protocol's new transport."""
            return await tls.start(
                self,
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )

    if sys.version_info < (3, 12):
        # From 3.12 on the standard library has pidfds by default.

        async def _make_subprocess_transport(self, *what: Any, **keywords: Any) -> Any:
            watcher = asyncio.get_child_watcher()
            if children.is_default(watcher):
                return await children.start(self, watcher, *what, **keywords)
            return await super()._make_subprocess_transport(*what, **keywords)  # type: ignore[misc]


def _is_socket(sock: object) -> bool:
    """Whether it is one by its type: what only has a socket's methods is left to the standard library."""
    return issubclass(type(sock), socket.socket)


def _call(handle: asyncio.Handle) -> None:
    if not handle._cancelled:
        handle._run()


class _Transports:
    """The transports by descriptor, as the standard library asks for them. It keeps none alive."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get(self, fd: int) -> object:
        """Return a descriptor's transport, or None."""
        return self._loop._transport_of(fd)

    def __getitem__(self, fd: int) -> object:
        transport = self._loop._transport_of(fd)
        if transport is None:
            raise KeyError(fd)
        return transport

    def __setitem__(self, fd: int, transport: object) -> None:
        self._loop._set_transport(fd, transport)

    def __delitem__(self, fd: int) -> None:
        self._loop._set_transport(fd, None)


class _Watched:
    """What the loop watches, as the standard library asks its selector for it."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get_key(self, file: FileDescriptorLike) -> selectors.SelectorKey:
        """Return the key of a descriptor, for what it is watched for."""
        registration = self._loop._registration(file)
        if registration is None:
            raise KeyError(f"{file!r} is not watched")
        return selectors.SelectorKey(file, *registration, None)

    def close(self) -> None:
        """Do nothing: the loop closes what it has."""
