"""kv.c: a server that answers redis-cli and redis-benchmark."""

import os
import random
import re
import signal
import socket
import subprocess

from tests.building import ONE_PROCESS
from tests.clients import receive, receive_all, receive_line, send_in_pieces
from tests.servers import STEP_SECONDS, Server, run


class KeyValueServer:
    def test_redis_cli_is_answered(self):
        conversation = {
            "PING": "PONG",
            "ECHO hello": "hello",
            "GET key": "",
            "SET key 41": "OK",
            "INCR key": "42",
            "get key": "42",
            "EXISTS key other key": "2",
            "DEL key other": "1",
            "EXISTS key": "0",
            'SET "a key" "two words"': "OK",
            'GET "a key"': "two words",
            'INCR "a key"': "ERR value is not an integer or out of range",
            "NONE": "ERR unknown command",
            "GET": "ERR wrong number of arguments for 'GET'",
        }
        for options in ((), ("-3",)):
            with Server(self.command) as server:
                said = self.redis_cli(server, *conversation, options=options)
                # It puts a blank line behind an error.
                self.assertEqual(" ".join(filter(None, said)), " ".join(filter(None, conversation.values())))
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_hello_chooses_the_protocol(self):
        none, setting = resp(b"GET", b"none such"), resp(b"CONFIG", b"GET", b"save")
        refused = b"-NOPROTO unsupported protocol version\r\n"
        with Server(self.command) as server:
            client = self.connect(server)
            for request, protocol in ((b"HELLO", 2), (b"hello 3", 3), (b"HELLO", 3), (b"HELLO 2", 2)):
                client.sendall(request + b"\r\nHELLO 4\r\nHELLO x\r\n" + none + setting)
                marks = (b"%5", b"_", b"%1") if protocol == 3 else (b"*10", b"$-1", b"*2")
                self.assertEqual(receive_line(client), marks[0])
                answer = receive(client, len(resp_words(b"server", b"kv", b"proto")))
                self.assertEqual(answer, resp_words(b"server", b"kv", b"proto"))
                self.assertEqual(receive_line(client), b":%d" % protocol)
                self.assertEqual(receive(client, 8), resp_words(b"id"))
                self.assertRegex(receive_line(client), rb"^:[1-9]\d*$")
                rest = resp_words(b"mode", b"standalone", b"role", b"master") + 2 * refused
                rest += marks[1] + b"\r\n" + marks[2] + b"\r\n" + resp_words(b"save", b"")
                self.assertEqual(receive(client, len(rest)), rest)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_client_that_asks_for_much_and_reads_late(self):
        """100 MB of answers are asked for before one is read; they are made as they are read."""
        value = random.Random(8).randbytes(1_000_000)
        answer = resp_words(value)
        for ends in (False, True):
            with Server(self.command) as server:
                client = self.connect(server)
                client.sendall(resp(b"SET", b"big", value))
                self.assertEqual(receive_line(client), b"+OK")
                client.sendall(b"GET big\r\n" * 100 + b"PING\r\n" + b"*1\r\n$4\r\nPI")
                if ends:
                    client.shutdown(socket.SHUT_WR)
                else:
                    server.wait_until_idle()
                for _ in range(100):
                    self.assertEqual(receive(client, len(answer)), answer)
                self.assertEqual(receive_line(client), b"+PONG")
                if not ends:
                    client.sendall(b"NG\r\n")
                    self.assertEqual(receive_line(client), b"+PONG")
                    client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(client), b"")
                client.close()
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_redis_benchmark_is_answered_and_each_request_counts(self):
        self.needs("redis-benchmark", "redis-tools")
        count = 5000
        with Server(self.command) as server:
            options = f"-p {server.port} -n {count} -c 20 -P 8 -q -t ping_inline,ping_mbulk,set,get,incr"
            said = run(["redis-benchmark", *options.split()], seconds=STEP_SECONDS)
            rates = re.findall(r"(\w+): ([\d.]+) requests per second", said)
            names = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"]
            self.assertEqual([name for name, _ in rates], names, said)
            print(*self.command[1:], *(f"{name} {float(rate):.0f}/s" for name, rate in rates))
            if self.model in ONE_PROCESS:
                counted = self.redis_cli(server, "GET counter:__rand_int__")
                self.assertGreaterEqual(int(counted[0]), count)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_requests_come_in_any_pieces(self):
        source = random.Random(6)
        requests, answers = self.conversation(source)
        with Server(self.command) as server:
            for longest in (50, 1000, len(requests)):
                client = self.connect(server)
                send_in_pieces(client, requests, source, longest)
                self.assertEqual(receive(client, len(answers)), answers)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def conversation(self, source):
        """Requests, one after the other, and what is answered to them."""
        value, large = source.randbytes(300), source.randbytes(20000)
        pairs = (
            (resp(b"DEL", b"n", b"v", b""), None),
            (b"PING\r\n", b"+PONG\r\n"),
            (b"  echo   hello  \n", b"$5\r\nhello\r\n"),
            (b"\r\n", b""),
            (b"*0\r\n", b""),
            (resp(b"SET", b"v", value), b"+OK\r\n"),
            (resp(b"get", b"v"), b"$%d\r\n%b\r\n" % (len(value), value)),
            (resp(b"GET", b"none such"), b"$-1\r\n"),
            *((resp(b"INCR", b"n"), b":%d\r\n" % n) for n in range(1, 100)),
            (resp(b"SET", b"v", large), b"+OK\r\n"),
            (resp(b"GET", b"v"), b"$%d\r\n%b\r\n" % (len(large), large)),
            (resp(b"SET", b"", b""), b"+OK\r\n"),
            (resp(b"GET", b""), b"$0\r\n\r\n"),
            (resp(b"DEL", b"n", b"v", b""), b":3\r\n"),
        )
        return tuple(map(b"".join, zip(*pairs[1:])))

    def test_what_is_no_request_is_told_and_ends_the_connection(self):
        wrong = [b"*x\r\n", b"*1\r\n+4\r\n", b"*-1\r\n", b"*1025\r\n", b"*1\r\n$4\r\nPINGxx"]
        wrong += [b"*" + b"1" * 40, b"*2\r\n$1048577\r\n", b"*1\n", b"x" * 65536]
        with Server(self.command) as server:
            for request in wrong:
                client = self.connect(server)
                client.sendall(b"PING\r\n" + request)
                self.assertEqual(receive_all(client), b"+PONG\r\n-ERR Protocol error\r\n", request)
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_what_clients_share_depends_on_the_model(self):
        count = 20
        with Server(self.command) as server:
            clients = [self.connect(server) for _ in range(count)]
            got = []
            for client in clients:
                client.sendall(resp(b"INCR", b"n"))
                got.append(int(receive_line(client)[1:]))
            if self.model in ONE_PROCESS:
                self.assertEqual(got, list(range(1, count + 1)))
            elif self.model == "fork":
                self.assertEqual(got, [1] * count)
            else:
                # Each process counts for itself, and without gaps.
                self.assertLessEqual(got.count(1), len(os.sched_getaffinity(0)))
                self.assertTrue(all(got.count(n) >= got.count(n + 1) for n in range(1, count)), got)
            for client in clients:
                client.close()
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_stop_answers_who_has_begun_to_ask(self):
        with Server(self.command) as server:
            idle, asks = self.connect(server), self.connect(server)
            for client in (idle, asks):
                # After the answer, what came with its request has been read, too.
                client.sendall(b"PING\r\n" + (b"*1\r\n$4\r\nPI" if client is asks else b""))
                self.assertEqual(receive_line(client), b"+PONG")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(receive_all(idle), b"")
            idle.close()
            asks.sendall(b"NG\r\n")
            self.assertEqual(receive_all(asks), b"+PONG\r\n")
            asks.close()
            self.assertEqual(server.ended(), 0, server.stderr())

    def redis_cli(self, server, *commands, options=()):
        """What redis-cli prints for commands, given on one connection."""
        self.needs("redis-cli", "redis-tools")
        done = subprocess.run(
            ["redis-cli", "-p", str(server.port), *options],
            input="\n".join(commands) + "\n",
            timeout=STEP_SECONDS,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()


def resp(*words):
    return b"*%d\r\n" % len(words) + resp_words(*words)


def resp_words(*words):
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
