"""The programs in adapters/: libcurl, c-ares, hiredis and libpq on a loop, with servers that others wrote."""

import collections
import contextlib
import http.server
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading

from tests.building import ADAPTERS
from tests.clients import receive
from tests.database import Program, free_port, postgres
from tests.dns import Upstream, answer_to, nobody
from tests.servers import STEP_SECONDS, environment, wait_until

BIG = bytes(300_000)


class Adapter:
    """A program of adapters/, in strict mode, which says what becomes of a descriptor that is watched."""

    findings = ("was closed while registered", "stands for another file", "was still registered")

    def setUp(self):
        super().setUp()
        if self.program not in ADAPTERS:
            self.skip_unless_ci(f"pkg-config does not know {self.library}")

    def start(self, engine, *arguments):
        command = [self.directory / self.program, "--engine", engine, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            env=environment({"OMNIPOLL_STRICT": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.sockets.callback(process.wait)
        self.sockets.callback(process.kill)
        self.sockets.enter_context(process.stdout)
        self.sockets.enter_context(process.stderr)
        return process

    def end(self, process, fails=False):
        """What it has printed, and what it said of errors."""
        output, said = process.communicate(timeout=2 * STEP_SECONDS)
        self.assertEqual(process.returncode, int(fails), said)
        self.assertNotIn("Sanitizer", said)
        for finding in self.findings:
            self.assertNotIn(finding, said)
        return output, said

    def run_it(self, engine, *arguments, fails=False):
        return self.end(self.start(engine, *arguments), fails)[0]

    def peer(self, serve):
        """Has each connection to a port served in a thread; returns the port."""

        def accept():
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return  # the test is over
                with client:
                    serve(client)

        listener = self.sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        self.sockets.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def silent(self):
        """The port of a peer that accepts connections, and nothing else: its system does."""
        listener = self.sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        return listener.getsockname()[1]


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, body = (200, BIG) if self.path == "/big" else (404, b"no such page")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        if self.headers["Host"].startswith("localhost"):
            self.close_connection = True  # half of it is all there is
        else:
            self.wfile.write(body[len(body) // 2 :])

    def log_message(self, *_):
        pass


class Website(http.server.ThreadingHTTPServer):
    request_queue_size = 1000
    daemon_threads = True


class Fetch(Adapter):
    program, library = "fetch", "libcurl"

    def setUp(self):
        super().setUp()
        site = self.sockets.enter_context(Website(("127.0.0.1", 0), Pages))
        self.sockets.callback(site.shutdown)
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        self.port = site.server_port

    def test_many_transfers_at_once(self):
        big, none = (f"http://127.0.0.1:{self.port}/{name}" for name in ("big", "none"))
        refused = f"http://127.0.0.1:{free_port()}/"
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.run_it(engine, "--times", 60, big, none, refused, fails=True)
                lines = {f"{big} 200 {len(BIG)}", f"{none} 404 12", f"{refused} Couldn't connect to server"}
                self.assertEqual(collections.Counter(said.splitlines()), dict.fromkeys(lines, 60))

    def test_a_peer_that_dies_in_the_middle(self):
        for engine in self.engines:
            with self.subTest(engine=engine):
                url = f"http://localhost:{self.port}/big"
                said = self.run_it(engine, "--times", 20, url, fails=True)
                self.assertEqual(set(said.splitlines()), {f"{url} Transferred a partial file"})

    def test_a_transfer_that_takes_too_long(self):
        url = f"http://127.0.0.1:{self.silent()}/"
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.run_it(engine, "--timeout", 50, "--times", 20, url, fails=True)
                self.assertEqual(said, f"{url} Timeout was reached\n" * 20)


class Resolve(Adapter):
    program, library = "resolve", "libcares"

    def upstream(self, *arguments):
        upstream = Upstream(*arguments)
        self.sockets.callback(upstream.close)
        return upstream

    def lines(self, engine, server, *arguments, fails=False):
        said = self.run_it(engine, "--server", server, *arguments, fails=fails)
        return sorted(said.splitlines())

    def test_many_names_at_once_and_some_that_there_are_not(self):
        names = [f"{kind}{number}.example.org" for kind in ("host", "no") for number in range(150)]
        expected = [f"{name} 192.0.2.7" for name in names[:150]]
        expected += [f"{name}: Domain name not found" for name in names[150:]]
        upstream = self.upstream()
        for engine in self.engines:
            with self.subTest(engine=engine):
                self.assertEqual(self.lines(engine, upstream.name, *names, fails=True), sorted(expected))

    def test_what_is_not_answered_is_asked_again(self):
        asked = set()

        def second(question):
            if question in asked:
                return [answer_to(question)]
            asked.add(question)
            return []

        upstream = self.upstream(second)
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.lines(engine, upstream.name, "--timeout", 200, "a.example.org", "b.example.org")
                self.assertEqual(said, ["a.example.org 192.0.2.7", "b.example.org 192.0.2.7"])

    def test_a_server_that_is_silent_or_not_there(self):
        silent, gone = self.upstream(lambda question: []), nobody()
        for engine in self.engines:
            with self.subTest(engine=engine):
                for server, why in (
                    (silent.name, "Timeout while contacting DNS servers"),
                    (gone, "Could not contact DNS servers"),
                ):
                    said = self.lines(engine, server, "--timeout", 50, "example.org", fails=True)
                    self.assertEqual(said, [f"example.org: {why}"])

    def test_a_truncated_answer_is_asked_for_by_tcp(self):
        def serve(client):
            (length,) = struct.unpack(">H", receive(client, 2))
            answer = answer_to(receive(client, length))
            for byte in struct.pack(">H", len(answer)) + answer:
                client.sendall(bytes([byte]))

        port = self.peer(serve)
        answer = self.sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        answer.bind(("127.0.0.1", port))

        def truncate():
            while True:
                question, client = answer.recvfrom(65535)
                if not question:
                    return
                answer.sendto(question[:2] + struct.pack(">H", 0x8380) + question[4:], client)

        thread = threading.Thread(target=truncate)
        thread.start()
        self.sockets.callback(thread.join, STEP_SECONDS)
        self.sockets.callback(answer.sendto, b"", ("127.0.0.1", port))
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.lines(engine, f"127.0.0.1:{port}", "example.org")
                self.assertEqual(said, ["example.org 192.0.2.7"])


class Pipeline(Adapter):
    program, library = "pipeline", "hiredis"

    def redis(self):
        self.needs("redis-server", "redis-server")
        port = free_port()
        folder = self.sockets.enter_context(tempfile.TemporaryDirectory())
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        return self.sockets.enter_context(Program(command, port)), port

    def test_many_commands_at_once_on_many_connections(self):
        _, port = self.redis()
        for time, engine in enumerate(self.engines, 1):
            with self.subTest(engine=engine):
                said = self.run_it(engine, "--connections", 20, "--commands", 500, port)
                self.assertEqual(said, f"10000 replies, 0 missing, highest {10000 * time}\n")

    def test_a_server_that_does_not_answer(self):
        server, port = self.redis()
        server.process.send_signal(signal.SIGSTOP)
        for engine in self.engines:
            with self.subTest(engine=engine):
                arguments = ("--timeout", 50, "--connections", 5, "--commands", 10, port)
                said = self.run_it(engine, *arguments, fails=True)
                self.assertEqual(said, "0 replies, 50 missing, highest 0\n")
        server.process.send_signal(signal.SIGCONT)

    def test_a_server_that_is_not_there_or_dies(self):
        def dies(client):
            receive(client, 1)
            client.sendall(b":1\r\n:2\r\n:3\r")

        dying, gone = self.peer(dies), free_port()
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.run_it(engine, "--connections", 5, "--commands", 10, dying, fails=True)
                self.assertRegex(said, "^(10|[0-9]) replies, [45]. missing, highest [02]\n$")
                process = self.start(engine, "--connections", 5, "--commands", 10, gone)
                said, errors = self.end(process, fails=True)
                self.assertEqual(said, "0 replies, 50 missing, highest 0\n")
                self.assertEqual(errors.count("pipeline: Connection refused\n"), 5)


class Query(Adapter):
    program, library = "query", "libpq"
    findings = Adapter.findings[1:]  # libpq closes its socket before it says that the connection is lost

    database = None  # of all tests of the class, since making one takes a second

    def setUp(self):
        super().setUp()
        self.needs("pg_ctlcluster", "postgresql")
        if self.database is None:
            servers = contextlib.ExitStack()
            self.addClassCleanup(servers.close)
            type(self).database = postgres(servers.enter_context)
        self.port = self.database.port

    def where(self, *ports):
        """Of hosts that are tried one after another; all are here."""
        hosts = ",".join(["127.0.0.1"] * len(ports))
        return f"host={hosts} port={','.join(map(str, ports))} user=tester dbname=postgres"

    def test_pipelines_on_many_connections(self):
        statement = "SELECT n FROM generate_series(1, 100) AS n"
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.run_it(
                    engine, "--connections", 10, "--times", 100, self.where(self.port), statement
                )
                self.assertEqual(said, "10 connections, 100000 rows, 0 errors, 0 losses\n")

    def test_the_next_host_is_tried_on_a_socket_of_the_same_number(self):
        def starts(client):
            receive(client, struct.unpack(">I", receive(client, 4))[0] - 4)
            fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
            client.sendall(b"E" + struct.pack(">I", len(fields) + 4) + fields)

        ports = (free_port(), self.peer(starts), self.peer(starts), self.port)
        where = self.where(*ports) + " sslmode=disable gssencmode=disable"
        for engine in self.engines:
            with self.subTest(engine=engine):
                said = self.run_it(engine, "--connections", 5, "--timeout", 30_000, where, "SELECT 1")
                self.assertEqual(said, "5 connections, 5 rows, 0 errors, 0 losses\n")

    def test_errors_of_the_statement(self):
        for engine in self.engines:
            with self.subTest(engine=engine):
                process = self.start(engine, "--times", 3, self.where(self.port), "SELECT 1 / 0")
                said, errors = self.end(process, fails=True)
                self.assertEqual(said, "1 connections, 0 rows, 3 errors, 0 losses\n")
                self.assertIn("division by zero", errors)

    def test_a_server_that_dies(self):
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(9%'"
        statement += " AND pid <> pg_backend_pid()"
        for engine in self.engines:
            with self.subTest(engine=engine):
                process = self.start(engine, "--connections", 3, self.where(self.port), "SELECT pg_sleep(90)")
                ended = 0

            def all_ended():
                nonlocal ended
                said = self.run_it(engine, self.where(self.port), statement)  # noqa: B023
                ended += int(re.search(r"(\d+) rows", said)[1])
                return ended >= 3

            wait_until(all_ended, "three connections that sleep")
            said, errors = self.end(process, fails=True)
            self.assertIn(" 3 losses\n", said)
            self.assertIn("terminating connection due to administrator command", errors)

    def test_a_server_that_does_not_answer_or_hangs_up(self):
        silent = self.silent()
        closing = self.peer(lambda client: receive(client, 4))
        for engine in self.engines:
            with self.subTest(engine=engine):
                for port, why in (
                    (silent, "time is up"),
                    (closing, "server closed the connection|reset by peer"),
                ):
                    arguments = ("--connections", 5, "--timeout", 50 if port == silent else 30_000)
                    process = self.start(engine, *arguments, self.where(port), "SELECT 1")
                    said, errors = self.end(process, fails=True)
                    self.assertEqual(said, "0 connections, 0 rows, 0 errors, 5 losses\n")
                    self.assertRegex(errors, why)


PROGRAMS = (Fetch, Resolve, Pipeline, Query)
