"""http.c: a server that answers wrk."""

import random
import re
import signal

from tests.clients import receive, receive_all, send_in_pieces
from tests.servers import STEP_SECONDS, Server, run


class HttpServer:
    OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n"
    BODY = b"Hello, world!\n"
    GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"

    def test_wrk_is_answered(self):
        self.needs("wrk", "wrk")
        with Server(self.command) as server:
            command = ["wrk", "-t1", "-c20", "-d1", f"http://127.0.0.1:{server.port}/"]
            said = run(command, seconds=STEP_SECONDS)
            self.assertNotIn("Socket errors", said)
            self.assertNotIn("Non-2xx", said)
            rate = float(re.search(r"Requests/sec: +([\d.]+)", said).group(1))
            self.assertGreater(rate, 0)
            print(*self.command[1:], f"{rate:.0f} requests/s")
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_requests_come_in_any_pieces(self):
        source = random.Random(7)
        long_get = self.GET[:-2] + b"X-Long: " + b"x" * 8000 + b"\r\n\r\n"
        head = self.GET.replace(b"GET", b"HEAD")
        requests = [source.choice((self.GET, self.GET, long_get, head)) for _ in range(300)]
        text = b"".join(requests)
        answers = b"".join(self.OK if request is head else self.OK + self.BODY for request in requests)
        with Server(self.command) as server:
            for longest in (2000, 9000, len(text)):
                client = self.connect(server)
                send_in_pieces(client, text, source, longest)
                self.assertEqual(receive(client, len(answers)), answers)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_the_connection_ends_when_either_side_says_so(self):
        closing = self.OK[:-2] + b"Connection: close\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            for last in (
                b"GET / HTTP/1.0\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: here\r\nconnection:  Close \r\n\r\n",
                b"GET /\xff HTTP/1.1\nConnection: close\n\n",
                b"GET / HTTP/1.1\r\nConnection: x,\tclose,keep-alive\r\n\r\n",
                b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            ):
                client = self.connect(server)
                client.sendall(self.GET + last + self.GET)
                self.assertEqual(receive_all(client), self.OK + self.BODY + closing, last)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_request_in_two_parts_whose_first_part_ends_the_connection(self):
        closing = self.OK[:-2] + b"Connection: close\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            for part in (b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\nHo"):
                client = self.connect(server)
                # The answer shows that the part, which came with its request, has been read.
                client.sendall(self.GET + part)
                self.assertEqual(receive(client, len(self.OK + self.BODY)), self.OK + self.BODY)
                client.sendall(b"st: here\r\n\r\n")
                self.assertEqual(receive_all(client), closing)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_http_1_0_keeps_the_connection_when_it_asks_for_that(self):
        ask = b"GET / HTTP/1.0\r\nConnection: TE, Keep-Alive\r\n\r\n"
        kept = self.OK[:-2] + b"Connection: keep-alive\r\n\r\n" + self.BODY
        with Server(self.command) as server:
            client = self.connect(server)
            for _ in range(2):
                client.sendall(ask)
                self.assertEqual(receive(client, len(kept)), kept)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_empty_lines_before_a_request_are_ignored(self):
        with Server(self.command) as server:
            client = self.connect(server)
            answer = self.OK + self.BODY
            pieces = [lines + self.GET for lines in (b"\r\n", b"\n\r\n\n", b"\r\n" * 10000)]
            pieces += [self.GET + b"\r", b"\n" + self.GET]  # one that comes in two parts
            for piece in pieces:
                client.sendall(piece)
                self.assertEqual(receive(client, len(answer)), answer)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_is_no_request_is_refused(self):
        wrong = {
            b"400 Bad Request": (
                b"garbage\r\n",
                b"\r\r\n",
                b"GET / HTTP/2.0\r\n",
                b"GET  HTTP/1.1\r\n",
                b"GET / HTTP/1.1\r\nno colon\r\n",
                b"GET / HTTP/1.1\r\n: no name\r\n",
                b"GET / HTTP/1.1\r\nContent-Length: 5\r\n",
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
                bytes(range(256)),
            ),
            b"405 Method Not Allowed": (b"POST / HTTP/1.1\r\n", b"G / HTTP/1.1\r\n"),
            b"431 Request Header Fields Too Large": (
                b"x" * 8192,
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
            ),
        }
        with Server(self.command) as server:
            for status, requests in wrong.items():
                for request in requests:
                    client = self.connect(server)
                    client.sendall(self.GET + request)
                    answer = receive_all(client)
                    expected = self.OK + self.BODY + b"HTTP/1.1 " + status + b"\r\n"
                    self.assertEqual(answer[: len(expected)], expected, request)
                    self.assertTrue(answer.endswith(b"Connection: close\r\n\r\n"), answer)
                    client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_stop_answers_who_has_begun_to_ask(self):
        with Server(self.command) as server:
            idle, asks = self.connect(server), self.connect(server)
            for client in (idle, asks):
                client.sendall(self.GET)
                self.assertEqual(receive(client, len(self.OK + self.BODY)), self.OK + self.BODY)
            # After the answer, what came with its request has been read, too.
            asks.sendall(self.GET + self.GET[:5])
            self.assertEqual(receive(asks, len(self.OK + self.BODY)), self.OK + self.BODY)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(receive_all(idle), b"")
            idle.close()
            asks.sendall(self.GET[5:])
            # Its loop may get the stop after that of the idle one, and close it then.
            closing = self.OK[:-2] + b"Connection: close\r\n\r\n"
            self.assertIn(receive_all(asks), (closing + self.BODY, self.OK + self.BODY))
            asks.close()
            self.assertEqual(server.ended(), 0, server.stderr())
