"""Clients, and what they send and receive."""

import fcntl
import itertools
import random
import selectors
import socket
import sys
import termios

from tests.servers import STEP_SECONDS, wait_until


def connect(address, receive_buffer=None):
    """To a port, or to the path of a unix socket."""
    is_path = isinstance(address, str)
    client = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
    client.settimeout(STEP_SECONDS)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(address if is_path else ("127.0.0.1", address))
    return client


def receive(client, length):
    data = bytearray()
    while len(data) < length:
        chunk = client.recv(length - len(data))
        if not chunk:
            raise AssertionError(f"end of file after {len(data)} of {length} bytes")
        data += chunk
    return bytes(data)


def receive_line(client, end=b"\r\n"):
    line = b""
    while not line.endswith(end):
        line += receive(client, 1)
    return line[: -len(end)]


def receive_all(client):
    """What comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def round_trip(client, message):
    client.sendall(message)
    return receive(client, len(message))


def send_in_pieces(client, data, source, longest):
    """In segments of any length up to that one."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    at = 0
    while at < len(data):
        piece = data[at : at + source.randint(1, longest)]
        client.sendall(piece)
        at += len(piece)


def wait_until_arrived(client):
    """Until the server's system has all that was sent: on a busy machine loopback takes its time."""

    def is_acknowledged():
        return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder) == 0

    wait_until(is_acknowledged, "an acknowledgement of all that was sent")


def is_closed_by_server(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


class EchoClient:
    """Sends a stream in pieces, ends it, and collects what comes back until the end."""

    def __init__(self, port, data, pieces, read_size=1 << 16):
        self.socket = connect(port)
        self.socket.setblocking(False)
        self.data, self.pieces, self.read_size = data, pieces, read_size
        self.sent = 0
        self.received = bytearray()

    def interest(self):
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.sent < len(self.data) else 0)

    def step(self, ready):
        """Does what can be done now. True at the end of the stream."""
        if ready & selectors.EVENT_WRITE:
            piece = self.data[self.sent : self.sent + next(self.pieces)]
            self.sent += self.socket.send(piece)
            if self.sent == len(self.data):
                self.socket.shutdown(socket.SHUT_WR)
        if ready & selectors.EVENT_READ:
            chunk = self.socket.recv(self.read_size)
            self.received += chunk
            return chunk == b""
        return False


def drive(clients):
    """Runs all the clients at once until each has come to its end."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, client.interest(), client)
        while selector.get_map():
            ready = selector.select(STEP_SECONDS)
            if not ready:
                raise AssertionError(f"{len(selector.get_map())} clients receive nothing any more")
            for key, mask in ready:
                client = key.data
                if client.step(mask):
                    selector.unregister(client.socket)
                    client.socket.close()
                elif key.events != client.interest():
                    selector.modify(client.socket, client.interest(), client)


def echo_clients(port, count, sizes, seed):
    """Clients that each send one message of every size, in pieces of uneven length. Every tenth
    sends more than the system's buffers hold and reads it slowly: writes to it are partial."""
    source = random.Random(seed)

    def pieces():
        while True:
            yield source.choice((1, 100, 1448, 10000, 300000))

    def stream():
        return b"".join(source.randbytes(size) for size in source.sample(sizes, len(sizes)))

    def client(number):
        if number % 10 == 0:
            return EchoClient(port, stream() * 16, itertools.repeat(300000), read_size=1 << 13)
        return EchoClient(port, stream(), pieces())

    return [client(number) for number in range(count)]
