"""The clients: blocking sockets of the process that measures. The server's loop is alone in its own."""

from __future__ import annotations

import socket
import ssl
from typing import Callable

from asyncio_rows.rows import Row

HOST = "127.0.0.1"
LIMIT = 60  # seconds for each answer

Load = Callable[[int], None]  # does so many operations


def connect(port: int, tls: bool) -> socket.socket:
    client = socket.create_connection((HOST, port), LIMIT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return client
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(client)


def receive(client: socket.socket, size: int) -> None:
    while size > 0:
        data = client.recv(size)
        if not data:
            raise ConnectionError("the server has closed the connection")
        size -= len(data)


def message_of(size: int) -> bytes:
    """It is a line, for the server that reads lines."""
    return b"x" * (size - 1) + b"\n"


def echo(row: Row, port: int) -> Load:
    """Each client sends one message, and then each receives its answer; the connections stay."""
    clients = [connect(port, row.tls) for _ in range(row.clients)]
    message = message_of(row.size)

    def run(operations: int) -> None:
        for _ in range(max(1, operations // row.clients)):
            for client in clients:
                client.sendall(message)
            for client in clients:
                receive(client, row.size)

    return run


def datagrams(row: Row, port: int) -> Load:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(LIMIT)
    client.connect((HOST, port))
    message = message_of(row.size)

    def run(operations: int) -> None:
        for _ in range(operations):
            client.send(message)
            client.recv(row.size)

    return run


def connections(row: Row, port: int) -> Load:
    """Each operation is a connection: a message, its answer and the end."""
    message = message_of(row.size)

    def run(operations: int) -> None:
        for _ in range(operations):
            with connect(port, row.tls) as client:
                client.sendall(message)
                receive(client, row.size)

    return run


def receive_answer(client: socket.socket) -> None:
    """Its head, in any number of pieces, and as much as that says is to follow."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        if not piece:
            raise ConnectionError("the server has closed the connection")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    _, _, rest = head.lower().partition(b"content-length:")
    receive(client, int(rest.split(b"\r", 1)[0]) - len(body))


def http(row: Row, port: int) -> Load:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client = connect(port, row.tls)

    def run(operations: int) -> None:
        for _ in range(operations):
            client.sendall(request)
            receive_answer(client)

    return run


LOADS: dict[str, Callable[[Row, int], Load]] = {
    "echo": echo,
    "datagrams": datagrams,
    "connect": connections,
    "http": http,
}
