"""`sock_recv` and its neighbours: each is tried, and waits when it would block."""

from __future__ import annotations

import socket
from asyncio import base_events
from typing import TYPE_CHECKING, Any

from omnipoll import _native

if TYPE_CHECKING:
    from typing_extensions import Buffer


class SocketCalls(_native.AsyncioLoop):
    """The loop's coroutines for a program's own sockets."""

    def _check_socket(self, sock: socket.socket) -> None:
        if type(sock) is not socket.socket:
            base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    async def sock_recv(self, sock: socket.socket, nbytes: int) -> bytes:
        """Receive at most `nbytes` bytes; none at the end."""
        self._check_socket(sock)
        received = self._start_receiving(sock, nbytes)
        return received if isinstance(received, bytes) else await received

    async def sock_recv_into(self, sock: socket.socket, buf: Buffer) -> int:
        """Receive into a buffer, and return how many bytes."""
        self._check_socket(sock)
        done, result = self._start_call(sock, False, "recv_into", buf)
        return result if done else await result  # type: ignore[no-any-return]

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram, and return it with its sender's address."""
        self._check_socket(sock)
        done, result = self._start_call(sock, False, "recvfrom", bufsize)
        return result if done else await result  # type: ignore[no-any-return]

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Buffer, nbytes: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer, and return its size with its sender's address."""
        self._check_socket(sock)
        nbytes = nbytes or memoryview(buf).nbytes
        done, result = self._start_call(sock, False, "recvfrom_into", buf, nbytes)
        return result if done else await result  # type: ignore[no-any-return]

    async def sock_sendall(self, sock: socket.socket, data: Buffer) -> None:
        """Send all of it, in as many pieces as it takes."""
        self._check_socket(sock)
        waiting = self._start_sending(sock, data)
        if waiting is not None:
            await waiting

    async def sock_sendto(self, sock: socket.socket, data: Buffer, address: Any) -> int:
        """Send a datagram to an address, and return how many bytes."""
        self._check_socket(sock)
        done, result = self._start_call(sock, True, "sendto", data, address)
        return result if done else await result  # type: ignore[no-any-return]

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection, and return its socket, which doesn't block, with the peer's address."""
        self._check_socket(sock)
        done, result = self._start_call(sock, False, "accept")
        connection, address = result if done else await result
        connection.setblocking(False)
        return connection, address
