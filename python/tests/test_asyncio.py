"""asyncio, socketserver and a server written for the standard selectors, on ours."""

from __future__ import annotations

import asyncio
import os
import socket
import socketserver
import threading
from collections.abc import Callable

import aio
import pytest
from conftest import SELECTORS

import omnipoll
from omnipoll import EVENT_READ, EVENT_WRITE, EpollSelector

CLIENTS = 20
ROUNDS = 20
LONG = 30


def serve_clients(address: tuple[str, int]) -> None:
    """Has many clients send something, and receive it back."""
    clients = [socket.create_connection(address, timeout=LONG) for _ in range(CLIENTS)]
    for number in range(ROUNDS):
        for index, client in enumerate(clients):
            client.sendall(b"%4d%4d" % (index, number))
        for index, client in enumerate(clients):
            assert client.recv(8, socket.MSG_WAITALL) == b"%4d%4d" % (index, number)
    for client in clients:
        client.close()


@pytest.mark.parametrize("make", [*SELECTORS, omnipoll.DefaultSelector])
def test_asyncio(make: Callable[[], EpollSelector]) -> None:
    async def main() -> list[int]:
        names = await aio.converse(CLIENTS)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: None)  # A thread that wakes the loop.
        return names

    loop = asyncio.SelectorEventLoop(make())
    try:
        names = loop.run_until_complete(asyncio.wait_for(main(), LONG))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert names == list(range(CLIENTS))


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := self.rfile.read(8):
            self.wfile.write(data)


@pytest.mark.parametrize("make", SELECTORS)
def test_socketserver(make: Callable[[], EpollSelector], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its serve_forever() waits on the selector of this name."""
    made: list[EpollSelector] = []

    def selector() -> EpollSelector:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(socketserver, "_ServerSelector", selector)
    monkeypatch.setattr(socketserver.TCPServer, "request_queue_size", CLIENTS)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        serve_clients(server.server_address)  # type: ignore[arg-type]
        server.shutdown()
        thread.join(LONG)
    assert len(made) == 1


class Server:
    """A server as the documentation of `selectors` has it, with writes that may not fit."""

    def __init__(self, selector: EpollSelector) -> None:
        self.selector = selector
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.pending: dict[socket.socket, bytes] = {}
        self.served = 0
        selector.register(self.listener, EVENT_READ, self.accept)

    def run(self) -> None:
        while self.served < CLIENTS:
            for key, events in self.selector.select():
                key.data(key.fileobj, events)
        self.selector.unregister(self.listener)
        self.listener.close()

    def accept(self, listener: socket.socket, _: int) -> None:
        client, _ = listener.accept()
        client.setblocking(False)
        self.pending[client] = b""
        self.selector.register(client, EVENT_READ, self.serve)

    def serve(self, client: socket.socket, events: int) -> None:
        if events & EVENT_READ:
            data = client.recv(100)
            if not data:
                self.selector.unregister(client)
                client.close()
                self.served += 1
                return
            self.pending[client] += data
        if self.pending[client]:
            sent = client.send(self.pending[client])
            self.pending[client] = self.pending[client][sent:]
        wanted = EVENT_READ | EVENT_WRITE if self.pending[client] else EVENT_READ
        self.selector.modify(client, wanted, self.serve)


def test_a_server_of_callbacks(selector: EpollSelector) -> None:
    server = Server(selector)
    thread = threading.Thread(target=server.run)
    thread.start()
    serve_clients(server.listener.getsockname())
    thread.join(LONG)
    assert not thread.is_alive()
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("make", [*SELECTORS, omnipoll.DefaultSelector])
def test_a_child_closes_the_loop_that_it_inherited(make: Callable[[], EpollSelector]) -> None:
    loop = asyncio.SelectorEventLoop(make())
    loop.run_until_complete(asyncio.sleep(0))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            loop.close()
            assert loop.is_closed()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(asyncio.sleep(0.001, "slept")) == "slept"
    loop.close()
