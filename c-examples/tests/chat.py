"""chat.c: what one client says, every other receives."""

import contextlib
import functools
import random
import socket

from tests.clients import (
    receive,
)
from tests.servers import Server, wait_until


class ChatServer:
    def test_every_line_reaches_every_other_client_in_order(self):
        people, lines = 20, 50
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(people)]
            self.all_are_in(clients)
            source = random.Random(3)

            def line(person, number):
                return f"{person} {number} {'x' * source.choice((0, 10, 500))}\n".encode()

            said = [[line(person, number) for number in range(lines)] for person in range(people)]
            for number in range(lines):
                for person, client in enumerate(clients):
                    client.sendall(said[person][number])
            for person, client in enumerate(clients):
                expected = {other: list(said[other]) for other in range(people) if other != person}
                reader = client.makefile("rb")
                for _ in range(lines * (people - 1)):
                    line = reader.readline()
                    speaker = int(line.split()[0])
                    self.assertEqual(line, expected[speaker].pop(0))
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_lines_come_whole(self):
        with Server(self.command) as server:
            first, second, listener = (self.connect(server) for _ in range(3))
            self.all_are_in([first, second, listener])
            first.sendall(b"half of ")
            second.sendall(b"a whole line\n")
            self.assertEqual(receive(listener, 13), b"a whole line\n")
            first.sendall(b"one\nand the beginning of ")
            self.assertEqual(receive(listener, 12), b"half of one\n")
            first.sendall(b"another\n")
            self.assertEqual(receive(listener, 29), b"and the beginning of another\n")
            long_line = random.Random(4).randbytes(10000).replace(b"\n", b"-") + b"\n"
            first.sendall(long_line)
            self.assertEqual(receive(listener, len(long_line)), long_line)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_slow_client_is_dropped_and_the_others_lose_nothing(self):
        chunk = (b"x" * 999 + b"\n") * 64
        limit = 64 << 20
        with Server(self.command) as server:
            slow = self.connect(server, receive_buffer=4096)
            talker, *others = (self.connect(server) for _ in range(6))
            self.all_are_in([slow, talker, *others])
            sent = 0
            while "client 1 dropped: it has left" not in server.stderr():
                self.assertLess(sent, limit, "a client that does not read is never dropped")
                talker.sendall(chunk)
                for other in others:
                    self.assertEqual(receive(other, len(chunk)), chunk)
                sent += len(chunk)
            with contextlib.suppress(ConnectionResetError):
                while slow.recv(1 << 16):
                    pass
            others[0].sendall(b"goodbye\n")
            for client in (talker, *others[1:]):
                self.assertEqual(receive(client, 8), b"goodbye\n")
            self.assertEqual(server.stderr().count("dropped"), 1)
            server.wait_until_idle()
            self.assertEqual(server.stop(), 0)

    def test_out_of_descriptors(self):
        with Server(self.command, descriptors=20) as server:
            clients = [self.connect(server) for _ in range(40)]
            server.wait_until_said("Too many open files")
            server.wait_until_idle()
            for first, second in zip(clients[::2], clients[1::2]):
                wait_until(functools.partial(self.receives, first, second), "the next two are accepted")
                first.close()
                second.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def receives(self, sender, receiver):
        sender.sendall(b"hello\n")
        receiver.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            return receiver.recv(6) != b""
        return False

    def all_are_in(self, clients):
        """The server accepts in order: when the last one's line arrives, all are accepted."""
        clients[-1].sendall(b"in\n")
        for client in clients[:-1]:
            self.assertEqual(receive(client, 3), b"in\n")
