"""rooms.c, and rooms.rs in Rust: a chat with rooms and heartbeats."""

import contextlib

from tests.clients import receive_all
from tests.servers import Server


class Rooms:
    def test_what_one_says_all_in_its_room_hear(self):
        with self.serve() as server, self.connect(server) as one, one.makefile() as heard:
            self.assertEqual(heard.readline(), f"{name_of(one)} has come\n")
            with self.connect(server) as other:
                name = name_of(other)
                self.assertEqual(heard.readline(), f"{name} has come\n")
                other.sendall(b"hel")
                other.sendall(b"lo\r\nall\n")
                self.assertEqual(heard.readline(), f"{name}: hello\n")
                self.assertEqual(heard.readline(), f"{name}: all\n")
            self.assertEqual(heard.readline(), f"{name} has left\n")
            self.assertEqual(server.stop(), 0, server.stderr())
            self.assertEqual(heard.read(), "")

    def test_a_room_hears_nothing_of_another(self):
        with self.serve() as server, self.connect(server) as one, one.makefile() as heard_by_one:
            self.assertEqual(heard_by_one.readline(), f"{name_of(one)} has come\n")
            one.sendall(b"/join kitchen\n")
            self.assertEqual(heard_by_one.readline(), f"{name_of(one)} has come\n")
            with self.connect(server) as other, other.makefile() as heard_by_other:
                name = name_of(other)
                self.assertEqual(heard_by_other.readline(), f"{name} has come\n")
                other.sendall(b"for the lobby\n")
                self.assertEqual(heard_by_other.readline(), f"{name}: for the lobby\n")
                other.sendall(b"/join kitchen\nhere I am\n")
                self.assertEqual(heard_by_one.readline(), f"{name} has come\n")
                self.assertEqual(heard_by_one.readline(), f"{name}: here I am\n")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_silent_client_is_asked_and_ended(self):
        with self.serve(heartbeat="0.05") as server, self.connect(server) as client:
            _, *rest = receive_all(client).splitlines()
            self.assertEqual(rest, [b"are you there?", b"goodbye"])
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_client_that_answers_stays(self):
        with self.serve(heartbeat="1") as server, self.connect(server) as client:
            with client.makefile() as heard:
                name = name_of(client)
                self.assertEqual(heard.readline(), f"{name} has come\n")
                self.assertEqual(heard.readline(), "are you there?\n")
                client.sendall(b"yes\n")
                self.assertEqual(heard.readline(), f"{name}: yes\n")
                self.assertEqual(heard.readline(), "are you there?\n")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_line_that_is_too_long_ends_its_client_alone(self):
        with self.serve() as server, self.connect(server) as one, self.connect(server) as other:
            other.sendall(b"x" * 2000)
            receive_until_end(other)
            one.sendall(b"still here\n")
            with one.makefile() as heard:
                while not heard.readline().endswith(": still here\n"):
                    pass
            self.assertEqual(server.stop(), 0, server.stderr())

    def serve(self, heartbeat="60"):
        return Server([*self.command, "--heartbeat", heartbeat])


def name_of(client):
    return "{}:{}".format(*client.getsockname())


def receive_until_end(client):
    with contextlib.suppress(ConnectionResetError):
        receive_all(client)
