"""broadcast.c: a server that sends every line to everybody."""

import itertools
import subprocess

from tests.building import ONE_PROCESS
from tests.clients import receive_line
from tests.servers import STEP_SECONDS, Server


class Broadcast:
    def test_every_line_reaches_everybody_or_the_model_is_refused(self):
        if self.model not in ONE_PROCESS:
            done = subprocess.run(self.command, timeout=STEP_SECONDS, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("processes that share no memory", done.stderr)
            self.assertIn("(ENOTSUP)", done.stderr)
            return
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(10)]
            for client in clients:  # each has joined when it receives its own line
                client.sendall(b"in\n")
                while receive_line(client, b"\n") != b"in":
                    pass
            for number, client in enumerate(clients):
                client.sendall(b"%d: hel" % number)
                client.sendall(b"lo\n")
            expected = {b"%d: hello" % number for number in range(len(clients))}
            for client in clients:
                lines = (receive_line(client, b"\n") for _ in iter(int, 1))
                received = set(itertools.islice((line for line in lines if line != b"in"), len(clients)))
                self.assertEqual(received, expected)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())
