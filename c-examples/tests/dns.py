"""dns.c: a DNS forwarder."""

import random
import socket
import struct
import subprocess
import threading

from tests.clients import connect
from tests.servers import STEP_SECONDS, Server, environment

A, SOA = 1, 6
SERVER_FAILURE, NO_SUCH_NAME = 2, 3


def name_of(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def question(number, name):
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + name_of(name) + struct.pack(">2H", A, 1)


def record(kind, life, data):
    """Of the name in the question, which begins at byte 12."""
    return b"\xc0\x0c" + struct.pack(">2HIH", kind, 1, life, len(data)) + data


def answer_to(asked, address="192.0.2.7"):
    """What an upstream answers: an address, or that there is none for what begins with `no`."""
    if asked[13:15] == b"no":
        soa = record(SOA, 600, b"\0\0" + struct.pack(">5I", 1, 2, 3, 4, 300))
        return asked[:2] + struct.pack(">5H", 0x8183, 1, 0, 1, 0) + asked[12:] + soa
    found = record(A, 300, socket.inet_aton(address))
    return asked[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0) + asked[12:] + found


class Upstream:
    """Answers in a thread, until it is closed."""

    def __init__(self, answer=lambda asked: [answer_to(asked)]):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.asked = []
        self.answer = answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            data, client = self.socket.recvfrom(65535)
            if not data:
                break
            self.asked.append(data[12:])
            for answer in self.answer(data):
                self.socket.sendto(answer, client)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.socket.getsockname())
        self.thread.join(STEP_SECONDS)
        self.socket.close()


def nobody():
    """An address at which nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


class Forwarder:
    def serving(self, *upstreams):
        arguments = [part for name in upstreams for part in ("--upstream", name)]
        return Server([*self.command, *arguments])

    def upstream(self, *arguments):
        upstream = Upstream(*arguments)
        self.addCleanup(upstream.close)
        return upstream

    def client(self, server):
        client = self.sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(STEP_SECONDS)
        client.connect(("127.0.0.1", server.port))
        return client

    def ask(self, client, number, name):
        client.send(question(number, name))
        answer = client.recv(65535)
        self.assertEqual(struct.unpack_from(">H", answer)[0], number)
        return answer

    def test_an_answer_is_kept(self):
        upstream = self.upstream()
        with self.serving(upstream.name) as server:
            for number in (1, 2, 3):
                client = self.client(server)
                answer = self.ask(client, number, "example.org")
                self.assertTrue(answer.endswith(socket.inet_aton("192.0.2.7")))
                answer = self.ask(client, 77 + number, "no.example.org")
                self.assertEqual(answer[3] & 15, NO_SUCH_NAME)
            self.assertEqual(len(upstream.asked), 2)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_client_over_tcp_sends_in_pieces_and_many_at_once(self):
        upstream = self.upstream()
        with self.serving(upstream.name) as server, connect(server.port) as client:
            names = {number: f"host{number}.example.org" for number in range(1, 20)}
            messages = [question(number, name) for number, name in names.items()]
            framed = b"".join(struct.pack(">H", len(message)) + message for message in messages)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(60):
                client.sendall(framed[at : at + 1])
            client.sendall(framed[60:])
            with client.makefile("rb") as answers:
                for _ in messages:
                    (length,) = struct.unpack(">H", answers.read(2))
                    answer = answers.read(length)
                    (number,) = struct.unpack_from(">H", answer)
                    self.assertEqual(answer, answer_to(question(number, names.pop(number))))

    def test_the_next_upstream_is_asked_when_one_is_not_there(self):
        upstream = self.upstream()
        with self.serving(nobody(), nobody(), upstream.name) as server:
            answer = self.ask(self.client(server), 5, "example.org")
            self.assertTrue(answer.endswith(socket.inet_aton("192.0.2.7")))
            server.wait_until_said("dns: upstream 1: ")

    def test_without_any_upstream_the_client_is_told(self):
        with self.serving(nobody(), nobody()) as server:
            for number in (5, 6):
                answer = self.ask(self.client(server), number, "example.org")
                self.assertEqual(answer[3] & 15, SERVER_FAILURE)
                self.assertEqual(answer[12:], question(number, "example.org")[12:])

    def test_only_the_answer_to_the_question_is_taken(self):
        def with_others(asked):
            number = struct.unpack_from(">H", asked)[0]
            other_id = struct.pack(">H", number ^ 1) + asked[2:]
            other_name = asked[:2] + question(0, "example.net")[2:]
            forged = [answer_to(other, "203.0.113.66") for other in (other_id, other_name)]
            return [b"", b"?", asked, *forged, answer_to(asked)]

        upstream = self.upstream(with_others)
        with self.serving(upstream.name) as server:
            answer = self.ask(self.client(server), 5, "example.org")
            self.assertTrue(answer.endswith(socket.inet_aton("192.0.2.7")))

    def test_what_is_no_message_does_no_harm(self):
        chance = random.Random(5)

        def garbled(asked):
            answer = bytearray(answer_to(asked))
            answers = []
            for _ in range(20):
                wrong = answer[: chance.randrange(12, len(answer) + 1)]
                wrong[chance.randrange(2, len(wrong))] ^= 1 << chance.randrange(8)
                answers.append(bytes(wrong))
            return [*answers, answer_to(asked)]

        upstream = self.upstream(garbled)
        with self.serving(upstream.name) as server:
            client = self.client(server)
            for number in range(50):
                wrong = bytearray(question(number, "www.example.org"))
                wrong[chance.randrange(2, len(wrong))] ^= 1 << chance.randrange(8)
                client.send(wrong[: chance.randrange(len(wrong) + 1)])
            other = self.client(server)
            other.send(question(9, "example.org"))
            while b"example" not in other.recv(65535):
                pass
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_dig_is_answered_by_udp_and_tcp(self):
        self.needs("dig", "bind9-dnsutils")
        upstream = self.upstream()
        with self.serving(upstream.name) as server:
            for way in ("+notcp", "+tcp"):
                command = ["dig", way, "+noedns", "+short", "-p", str(server.port), "@127.0.0.1"]
                command.append("example.org")
                done = subprocess.run(
                    command, env=environment(), timeout=STEP_SECONDS, capture_output=True, text=True
                )
                self.assertEqual(done.stdout, "192.0.2.7\n", done.stderr)
