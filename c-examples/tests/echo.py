"""echo.c, the same server on each system call alone (raw_*.c), and serve.c."""

import contextlib
import random
import signal
import socket
import struct
import subprocess

from tests.building import ADAPTERS
from tests.clients import (
    drive,
    echo_clients,
    is_closed_by_server,
    receive,
    round_trip,
)
from tests.servers import STEP_SECONDS, Server, environment


class EchoServer:
    """What is true of every echo server; `command` starts it."""

    def test_many_clients_at_once(self):
        with Server(self.command) as server:
            sizes = [1, 2, 77, 4096, 65536, 262144]
            clients = echo_clients(server.port, count=50, sizes=sizes, seed=1)
            drive(clients)
            for client in clients:
                self.assertEqual(client.received, client.data)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_client_that_does_not_read(self):
        limit = 64 << 20
        chunk = random.Random(2).randbytes(1 << 16)
        with Server(self.command) as server:
            slow = self.connect(server, receive_buffer=4096)
            slow.settimeout(0.3)
            sent = 0
            with contextlib.suppress(socket.timeout):
                while sent < limit:
                    sent += slow.send(chunk[sent % len(chunk) :])
            self.assertLess(sent, limit, "the server takes what it can't give back")
            server.wait_until_idle()
            other = self.connect(server)
            for size in (1, 1000, 100000):
                self.assertEqual(round_trip(other, chunk[:size]), chunk[:size])
            slow.settimeout(STEP_SECONDS)
            slow.shutdown(socket.SHUT_WR)
            expected = chunk * (sent // len(chunk)) + chunk[: sent % len(chunk)]
            self.assertEqual(receive(slow, sent), expected)
            self.assertEqual(slow.recv(1), b"")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_reset_connection(self):
        with Server(self.command) as server:
            stays = self.connect(server)
            for length in (0, 1, 1 << 20):
                client = self.connect(server)
                client.settimeout(0.3)
                with contextlib.suppress(socket.timeout):
                    client.sendall(bytes(length))
                # A close with this option resets the connection.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                self.assertEqual(round_trip(stays, b"still there"), b"still there")
            server.wait_until_idle()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_either_signal_ends_it_with_clients_connected(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            with Server(self.command) as server:
                clients = [self.connect(server) for _ in range(3)]
                for client in clients:
                    self.assertEqual(round_trip(client, b"hello"), b"hello")
                self.assertEqual(server.stop(signo), 0, server.stderr())
                for client in clients:
                    self.assertTrue(is_closed_by_server(client))


class CEchoServer(EchoServer):
    """What is true of those in C besides."""

    def test_out_of_descriptors(self):
        with Server(self.command, descriptors=20) as server:
            clients = [self.connect(server) for _ in range(40)]
            server.wait_until_said("Too many open files")
            server.wait_until_idle()
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_more_clients_than_a_set_holds(self):
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(1100)]
            echoed = 0
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"hello")
                    echoed += client.recv(5) == b"hello"
            if self.command[0].endswith("raw_select"):
                self.assertIn("does not fit a set of 1024", server.stderr())
                self.assertTrue(1000 < echoed < 1024, echoed)
            else:
                self.assertEqual(echoed, 1100)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_bad_command_line(self):
        for options in ("--engine none", "--engine", "--address nowhere", "--address 127.0.0.1:70000"):
            done = subprocess.run(
                self.command[:1] + options.split(),
                env=environment(),
                timeout=STEP_SECONDS,
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("usage:", done.stderr)


class EchoOnALoop(EchoServer):
    """pulled.c: an echo server on an event loop."""

    def test_more_clients_than_a_set_holds(self):
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(1100)]
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_out_of_descriptors(self):
        with Server(self.command, descriptors=20) as server:
            clients = [self.connect(server) for _ in range(40)]
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_bad_command_line(self):
        for option, words in (
            ("--engine=none", "omni_engine_by_name"),
            ("--address=nowhere", "omni_loop_listen"),
            ("--none", "unrecognized option"),
        ):
            done = subprocess.run(
                [self.command[0], option], timeout=STEP_SECONDS, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(words, done.stderr)


class EchoInAnotherLoop(EchoServer):
    """in_glib.c, in_libuv.c: an event loop that another library's loop runs, by its descriptor."""

    def setUp(self):
        super().setUp()
        if self.program not in ADAPTERS:
            self.skip_unless_ci(f"pkg-config does not know the library of {self.program}")

    def test_engines_without_a_descriptor_are_refused(self):
        for engine in ("select", "poll"):
            command = [self.command[0], "--engine", engine]
            done = subprocess.run(command, timeout=STEP_SECONDS, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("omni_loop_descriptor", done.stderr)


class EchoByModel(EchoServer):
    """serve.c: an echo server under one of the models."""

    def test_more_clients_than_a_set_holds(self):
        most = 500 if self.model in ("thread", "fork") else 1100  # 512 are served at once there
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(most)]
            for client in clients:
                self.assertEqual(round_trip(client, b"hello"), b"hello")
            for client in clients:
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_bad_command_line(self):
        for option, words in (
            ("--model=none", "no model has that name"),
            ("--engine=none", "there is no engine of that number"),
            ("--address=nowhere", "omni_server_listen"),
            ("--none", "unrecognized option"),
        ):
            done = subprocess.run(
                [self.command[0], option], timeout=STEP_SECONDS, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(words, done.stderr)
