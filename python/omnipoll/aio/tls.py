"""TLS: the standard library's protocol and transport, with what every message goes through native.

The standard library of Python 3.9 and 3.10 has an older protocol, with other states, and is used as it is.
"""

from __future__ import annotations

import ssl
from asyncio import sslproto
from typing import TYPE_CHECKING, Any

from omnipoll import _native

if TYPE_CHECKING:
    from omnipoll.aio.event_loop import EventLoop

_FATAL = "Fatal error on SSL protocol"

# Annotations leave out most of what it has.
_Standard: Any = sslproto.SSLProtocol

# What is called or replaced here, of what the standard library doesn't document.
_USED = (
    "_call_eof_received",
    "_control_app_writing",
    "_control_ssl_reading",
    "_do_read",
    "_do_write",
    "_fatal_error",
    "_set_state",
    "_set_read_buffer_limits",
    "_set_write_buffer_limits",
    "_start_shutdown",
    "_write_appdata",
)


class TlsProtocol(_native.Tls, _Standard):  # type: ignore[misc]
    """The protocol of a transport that offers another transport to an application's protocol."""

    # Nothing is received here: the buffer is the loop's.
    max_size = 0

    def __init__(self, loop: EventLoop, *args: Any, **options: Any) -> None:
        """Take what the standard library's takes."""
        super().__init__(loop, *args, **options)
        ssl_object: Any = self._sslobj
        if type(ssl_object) is ssl.SSLObject:
            ssl_object = ssl_object._sslobj  # type: ignore[attr-defined]
        self._open(loop._tls_buffer, ssl_object, self._incoming, self._outgoing)

    def _set_state(self, new_state: Any) -> None:
        super()._set_state(new_state)
        transport = self._app_transport
        if transport is None:
            return
        # Only as long as it is needed: the two would keep each other alive.
        if new_state is sslproto.SSLProtocolState.WRAPPED:
            transport.write = self._write
        else:
            transport.__dict__.pop("write", None)

    def get_buffer(self, n: int) -> memoryview:
        """Return a buffer of its own: only transports that are not native ask for one."""
        self.max_size = _Standard.max_size
        buffer: memoryview = super().get_buffer(n)
        return buffer

    def _set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_read_buffer_limits(high, low)
        self._is_reading_limited = not self._incoming_high_water

    def _set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_write_buffer_limits(high, low)
        self._is_writing_limited = not self._outgoing_high_water

    def _failed(self, exc: BaseException) -> None:
        try:
            raise exc
        except Exception as exc:
            self._fatal_error(exc, _FATAL)


IS_NATIVE = all(hasattr(_Standard, name) for name in _USED)
Protocol: Any = TlsProtocol if IS_NATIVE else _Standard


async def start(
    loop: EventLoop,
    transport: Any,
    protocol: Any,
    sslcontext: ssl.SSLContext,
    **options: Any,
) -> Any:
    """Put TLS between a transport and its protocol, and return the transport that this one has then."""
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    waiter = loop.create_future()
    tls = Protocol(loop, protocol, sslcontext, waiter, call_connection_made=False, **options)
    # Nothing is to arrive before the protocol has its transport.
    transport.pause_reading()
    transport.set_protocol(tls)
    steps = (loop.call_soon(tls.connection_made, transport), loop.call_soon(transport.resume_reading))
    try:
        await waiter
    except BaseException:
        transport.close()
        for step in steps:
            step.cancel()
        raise
    return tls._app_transport
