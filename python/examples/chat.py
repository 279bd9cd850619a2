"""Sends what one client has said to all of them: python chat.py [ADDRESS [MODEL]].

Talk to it with `nc 127.0.0.1 7001`. The model may be reactor, cores or thread: under fork and
prefork it would not reach the clients of other processes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import omnipoll
from omnipoll import Connection

if TYPE_CHECKING:

    class Client(Connection):
        unread: bytes


class Chat:
    server: omnipoll.Server

    def on_open(self, connection: Client) -> None:
        connection.unread = b""
        self.send_to_all(f"{connection.peer} has come")

    def on_data(self, connection: Client, data: bytes) -> None:
        *lines, connection.unread = (connection.unread + data).split(b"\n")
        for line in lines:
            self.send_to_all(f"{connection.peer}: {line.decode(errors='replace').rstrip()}")
        if len(connection.unread) > 1000:
            connection.abort()

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        self.send_to_all(f"{connection.peer} has left")

    def send_to_all(self, words: str) -> None:
        self.server.broadcast(f"{words}\n".encode())


def main(address: str = "127.0.0.1:7001", model: str = "reactor") -> None:
    chat = Chat()
    chat.server = omnipoll.Server(chat, address, model=model, signals=True)
    print("listening on", *chat.server.addresses, flush=True)
    chat.server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
