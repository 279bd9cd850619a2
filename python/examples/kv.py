"""A small in-memory key-value server that speaks the Redis protocol (RESP2, or RESP3 after HELLO 3).

    python kv.py --address 127.0.0.1:6379 --model reactor --engine epoll
    redis-cli -p 6379 set greeting hello
    redis-benchmark -p 6379 -t ping,set,get,incr -P 16

Under reactor, cores and thread all clients see the same keys. Under prefork each worker process
has keys of its own, and under fork each client: memory is not shared between processes.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import omnipoll
from omnipoll import Connection

HIGH_WATER = 64 * 1024  # Unsent bytes past which a client has to read before it is answered again.
LARGEST = 16 * 1024 * 1024  # Bytes of a key or value.
MOST = 1024  # Words of a request.
INTEGERS = range(-(2**63), 2**63)

Reply = Union[str, bytes, int, None, list["Reply"], dict[bytes, "Reply"]]
Commands = dict[bytes, tuple[Callable[..., Reply], range]]  # With how many arguments each takes.
UNLIMITED = 1 << 30


class Refusal(Exception):
    """An answer that says why not."""


class LastReply(Exception):
    """The last answer to a client."""


# ---- The protocol --------------------------------------------------------------------------


def take(unread: bytearray) -> list[bytes] | None:
    """The first request, taken out of the buffer; None while it has not all arrived."""
    end = unread.find(b"\n")
    if end < 0:
        if len(unread) > HIGH_WATER:
            raise LastReply("-ERR Protocol error: too big inline request")
        return None
    if unread[0] != ord("*"):  # Words typed by a human, or redis-benchmark's PING_INLINE.
        words = bytes(unread[:end]).split()
        del unread[: end + 1]
        return words
    words = []
    count = number(unread[1:end], MOST)
    for _ in range(count):
        begin, end = end + 1, unread.find(b"\n", end + 1)
        if end < 0:
            return None
        if unread[begin] != ord("$"):
            raise LastReply(f"-ERR Protocol error: expected '$', got '{chr(unread[begin])}'")
        begin, end = end + 1, end + 1 + number(unread[begin + 1 : end], LARGEST)
        words.append(bytes(unread[begin:end]))
        end += 1  # The carriage return; the line feed is the end.
        if len(unread) <= end:
            return None
    del unread[: end + 1]
    return words


def number(digits: bytearray, most: int) -> int:
    try:
        value = int(digits)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise LastReply("-ERR Protocol error: invalid length")
    return value


def encode(reply: Reply, protocol: int) -> bytes:
    """A str is a status, bytes are a value."""
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, str):
        return b"+%b\r\n" % reply.encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(encode(item, protocol) for item in reply)
    if isinstance(reply, dict):
        items = [item for pair in reply.items() for item in pair]
        begin = b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % len(items)
        return begin + b"".join(encode(item, protocol) for item in items)
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def line(words: Exception) -> bytes:
    return f"{words}\r\n".encode()


# ---- The commands --------------------------------------------------------------------------


class Store:
    """The keys, and what can be asked of them."""

    def __init__(self) -> None:
        """Begins empty."""
        self.values: dict[bytes, bytes] = {}
        self.commands: Commands = {
            b"PING": (self.ping, range(0, 2)),
            b"ECHO": (self.echo, range(1, 2)),
            b"GET": (self.values.get, range(1, 2)),
            b"SET": (self.set, range(2, 3)),
            b"DEL": (self.delete, range(1, UNLIMITED)),
            b"EXISTS": (self.exists, range(1, UNLIMITED)),
            b"INCR": (self.increment, range(1, 2)),
            b"QUIT": (self.quit, range(0, UNLIMITED)),
            # What redis-cli and redis-benchmark ask by themselves.
            b"COMMAND": (self.command, range(0, UNLIMITED)),
            b"CONFIG": (self.config, range(2, 3)),
        }

    def ping(self, *message: bytes) -> Reply:
        return message[0] if message else "PONG"

    def echo(self, message: bytes) -> Reply:
        return message

    def set(self, key: bytes, value: bytes) -> Reply:
        self.values[key] = value
        return "OK"

    def delete(self, *keys: bytes) -> Reply:
        return sum(self.values.pop(key, None) is not None for key in keys)

    def exists(self, *keys: bytes) -> Reply:
        return sum(key in self.values for key in keys)

    def increment(self, key: bytes) -> Reply:
        try:
            value = int(self.values.get(key, b"0")) + 1
        except ValueError:
            value = INTEGERS.stop
        if value not in INTEGERS:
            raise Refusal("-ERR value is not an integer or out of range")
        self.values[key] = b"%d" % value
        return value

    def quit(self, *_: bytes) -> Reply:
        raise LastReply("+OK")

    def command(self, *_: bytes) -> Reply:
        return []

    def config(self, _: bytes, name: bytes) -> Reply:
        return {name: b""}


class Client:
    """What one client has asked, and the protocol it wants to be answered in."""

    def __init__(self, number: int, store: Store) -> None:
        """Begins with RESP2."""
        self.unread = bytearray()
        self.number = number
        self.protocol = 2
        self.commands: Commands = {**store.commands, b"HELLO": (self.hello, range(0, 2))}

    def answer(self, request: list[bytes]) -> bytes:
        """Does what is asked, and says so in the protocol's words."""
        if not request:
            return b""
        name, *arguments = request
        try:
            command, arity = self.commands.get(name.upper(), (None, range(0)))
            if command is None:
                raise Refusal(f"-ERR unknown command '{name[:128].decode(errors='replace')}'")
            if len(arguments) not in arity:
                raise Refusal(f"-ERR wrong number of arguments for '{name.decode().lower()}' command")
            reply = command(*arguments)
        except Refusal as refusal:
            return line(refusal)
        return encode(reply, self.protocol)

    def hello(self, *protocol: bytes) -> Reply:
        if protocol:
            if protocol[0] not in (b"2", b"3"):
                raise Refusal("-NOPROTO unsupported protocol version")
            self.protocol = int(protocol[0])
        return {
            b"server": b"kv",
            b"proto": self.protocol,
            b"id": self.number,
            b"mode": b"standalone",
            b"role": b"master",
        }


# ---- The server ----------------------------------------------------------------------------


if TYPE_CHECKING:

    class Served(Connection):
        """With what the server knows of its client."""

        client: Client


class Handler:
    """Answers requests; many may come at once, and the answers leave together."""

    def __init__(self) -> None:
        """Begins with an empty store."""
        self.store = Store()
        self.turn = threading.Lock()

    def on_open(self, connection: Served) -> None:
        connection.client = Client(connection.id, self.store)

    def on_data(self, connection: Served, data: bytes) -> None:
        connection.client.unread += data
        self.work(connection)

    def on_drain(self, connection: Served) -> None:
        self.work(connection)

    def work(self, connection: Served) -> None:
        """Answers what was asked, until the client has to read its answers first."""
        answers = bytearray()
        try:
            while self.fill(answers, connection.client):
                if connection.write(answers) > HIGH_WATER:
                    return  # on_drain continues.
                answers.clear()
        except LastReply as last:
            connection.write(answers + line(last))
            connection.close()

    def fill(self, answers: bytearray, client: Client) -> bool:
        """Answers some requests; false when there were none."""
        with self.turn:  # Under cores and thread others want the store, too.
            while len(answers) < HIGH_WATER:
                request = take(client.unread)
                if request is None:
                    break
                answers += client.answer(request)
        return bool(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", default="127.0.0.1:6379")
    parser.add_argument("--model", default="reactor", help="reactor, cores, thread, fork or prefork")
    parser.add_argument("--engine", default="auto", help="select, poll, epoll, io_uring or auto")
    parser.add_argument("--workers", type=int, help="how many loops or processes (cores, prefork)")
    options = parser.parse_args()
    server = omnipoll.Server(
        Handler(),
        options.address,
        model=options.model,
        engine=options.engine,
        workers=options.workers,
        high_water=HIGH_WATER,
        signals=True,
    )
    print(f"{server.model} on {server.engine}, listening on", *server.addresses, flush=True)
    server.run()


if __name__ == "__main__":
    main()
