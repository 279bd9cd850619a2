"""Sends what a client has said to all in its room: python chat.py [ADDRESS [MODEL [HEARTBEAT]]].

Talk to it with `nc 127.0.0.1 7001`. "/join ROOM" changes the room. A client that has said nothing for
HEARTBEAT seconds is asked to answer, and ended when it does not do so in time. The model may be reactor,
cores or thread: under fork and prefork it would not reach the clients of other processes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import omnipoll
from omnipoll import Connection

if TYPE_CHECKING:

    class Client(Connection):
        unread: bytes
        room: str
        is_asked: bool


class Chat:
    server: omnipoll.Server

    def __init__(self, heartbeat: float) -> None:
        self.heartbeat = heartbeat

    def on_open(self, client: Client) -> None:
        client.unread, client.room, client.is_asked = b"", "lobby", False
        client.set_timer(self.heartbeat)
        client.join(client.room)
        self.tell(client.room, f"{client.peer} has come")

    def on_data(self, client: Client, data: bytes) -> None:
        client.is_asked = False
        client.set_timer(self.heartbeat)
        *lines, client.unread = (client.unread + data).split(b"\n")
        for line in lines:
            self.said(client, line.decode(errors="replace").rstrip())
        if len(client.unread) > 1000:
            client.abort()

    def said(self, client: Client, line: str) -> None:
        command, _, room = line.partition(" ")
        if command == "/join" and 0 < len(room.encode()) <= 255:
            client.leave(client.room)
            self.tell(client.room, f"{client.peer} has left")
            client.room = room
            client.join(room)
            self.tell(room, f"{client.peer} has come")
        else:
            self.tell(client.room, f"{client.peer}: {line}")

    def on_timer(self, client: Client) -> None:
        """It has been silent for so long."""
        if client.is_asked:
            client.write(b"goodbye\n")
            client.close()
        else:
            client.is_asked = True
            client.write(b"are you there?\n")
            client.set_timer(self.heartbeat)

    def on_stop(self, client: Client) -> None:
        client.close()

    def on_close(self, client: Client, error: OSError | None) -> None:
        self.tell(client.room, f"{client.peer} has left")

    def tell(self, room: str, words: str) -> None:
        self.server.broadcast(f"{words}\n".encode(), group=room)


def main(address: str = "127.0.0.1:7001", model: str = "reactor", heartbeat: str = "60") -> None:
    chat = Chat(float(heartbeat))
    chat.server = omnipoll.Server(chat, address, model=model, signals=True)
    print("listening on", *chat.server.addresses, flush=True)
    chat.server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
