"""signals.c: a server that reloads and ends by signals."""

import errno
import signal
import socket

from tests.clients import is_closed_by_server, receive, wait_until_arrived
from tests.servers import Server


class SignalServer:
    def test_hangup_signal_reloads_and_nobody_is_lost(self):
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(5)]
            for reloads in range(3):
                for client in clients:
                    client.sendall(b"in pieces")
                for client in clients:
                    client.sendall(b", please\n")
                for client in clients:
                    self.assertEqual(receive(client, 20), b"%d in pieces, please\n" % reloads)
                server.process.send_signal(signal.SIGHUP)
                server.wait_until_said(f"settings {reloads + 1}\n")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_was_asked_is_answered_before_the_end(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            with Server(self.command) as server:
                _, half, asks = clients = [self.connect(server) for _ in range(3)]
                for client in clients:
                    client.sendall(b"hello\n")
                for client in clients:
                    self.assertEqual(receive(client, 8), b"0 hello\n")
                half.sendall(b"half a")
                asks.sendall(b"one\ntwo\n")
                wait_until_arrived(asks)
                server.process.send_signal(signo)
                self.assertEqual(receive(asks, 12), b"0 one\n0 two\n")
                for client in clients:
                    self.assertTrue(is_closed_by_server(client))
                self.assertEqual(server.ended(), 0, server.stderr())
                with socket.socket() as late:
                    self.assertEqual(late.connect_ex(("127.0.0.1", server.port)), errno.ECONNREFUSED)

    def test_it_ends_though_the_work_does_not(self):
        for again in (False, True):
            with Server([*self.command, "--work", "3600000"]) as server:
                client, idle = self.connect(server), self.connect(server)
                client.sendall(b"how long?\n")
                wait_until_arrived(client)
                server.process.send_signal(signal.SIGTERM)
                self.assertTrue(is_closed_by_server(idle))
                if again:
                    server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.ended(), 1)
                self.assertTrue(is_closed_by_server(client))
                self.assertIn("ended with 1 clients unanswered", server.stderr())
