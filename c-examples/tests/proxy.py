"""proxy.c: clients are passed on to backends."""

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path

from tests.clients import connect, drive, echo_clients, is_closed_by_server, receive, receive_all, round_trip
from tests.servers import STEP_SECONDS, Server, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# Version 2: PROXY, over TCP and IPv4, 192.0.2.1:7000 to 192.0.2.2:80.
IPV4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 7000, 80)
LINE = b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 80\r\n"


def binary(addresses, command=0x21, family=0x11, length=None):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", length or len(addresses)) + addresses


def ipv6(source, destination, *ports):
    return b"".join(socket.inet_pton(socket.AF_INET6, name) for name in (source, destination)) + struct.pack(
        "!HH", *ports
    )


# What is accepted, and the line that is made of it. None: of the connection's own addresses.
HEADERS = (
    (LINE, LINE),
    (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN and whatever else 1 2\r\n", None),
    (b"PROXY UNKNOWN " + 91 * b"x" + b"\r\n", None),  # the longest line: 107 bytes
    (binary(IPV4), LINE),
    (binary(ipv6("2001:db8::1", "::1", 0, 65535), family=0x21), b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"),
    (binary(IPV4 + b"\x04\0\x02xx" + b"\x20\0\0"), LINE),  # with values behind the addresses
    (binary(216 * b"u", family=0x31), None),
    (binary(b"", command=0x20, family=0), None),  # of the proxy before us: it looks whether we are well
    (binary(b"anything", command=0x20, family=0), None),
    (binary(b"anything", family=0), None),
)
REFUSED = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 80\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 80 \r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7000\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 07000 80\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 ::1 7000 80\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1\0 192.0.2.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 70\r00 80\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN " + 92 * b"x" + b"\r\n",
    SIGNATURE[:-1] + b"X",
    binary(IPV4, command=0x11),  # another version
    binary(IPV4, command=0x22),  # another command
    binary(IPV4, family=0x41),
    binary(IPV4, family=0x13),
    binary(IPV4, family=0x01),
    binary(IPV4[:-1]),
    binary(IPV4, family=0x21),
    binary(IPV4 + b"\x04\0"),  # a value that is not whole
    binary(IPV4 + b"\x04\0\x03xx"),
    binary(IPV4, length=65535),  # more than anybody sends
)


class Backend:
    """A server for one connection after another, in this process."""

    def __init__(self, port=0):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(STEP_SECONDS)
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(STEP_SECONDS)
        return connection

    def has_client(self):
        self.listener.settimeout(0.05)
        with contextlib.suppress(socket.timeout):
            self.accept().close()
            return True
        return False


def refused_address():
    """Where nobody listens: a port that a socket has, so that nobody else gets it."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken, f"127.0.0.1:{taken.getsockname()[1]}"


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Proxy:
    """`command`, to which the address to listen on and those of the backends are added; `echo`, a server."""

    @contextlib.contextmanager
    def proxy(self, *backends, options=()):
        with Server([*self.command, *options, "127.0.0.1:0", *backends]) as server:
            yield server

    @contextlib.contextmanager
    def between(self, backend, options=()):
        """A client, the connection to the backend that it is passed on to, and the proxy."""
        with self.proxy(backend.address, options=options) as server, self.connect(server) as client:
            with backend.accept() as passed_on:
                yield client, passed_on, server

    def test_bytes_pass_both_ways_and_ends_behind_them(self):
        with Server(self.echo) as echo, self.proxy(f"127.0.0.1:{echo.port}") as server:
            clients = echo_clients(server.port, 50, (1, 100, 70_000, 300_000), seed=8)
            drive(clients)
            for client in clients:
                self.assertTrue(client.received == client.data)
            self.assertEqual(server.stop(), 0, server.stderr())

    def test_a_backend_that_has_got_the_end_can_still_answer(self):
        with Backend() as backend, self.between(backend) as (client, passed_on, _):
            client.sendall(b"a question")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(passed_on), b"a question")
            answer = random.Random(5).randbytes(1 << 20)
            sender = threading.Thread(target=lambda: (passed_on.sendall(answer), passed_on.close()))
            sender.start()
            self.assertTrue(receive_all(client) == answer)
            sender.join()

    def test_a_client_that_has_got_the_end_can_still_send(self):
        with Backend() as backend, self.between(backend) as (client, passed_on, _):
            passed_on.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(client), b"")
            client.sendall(b"the rest")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(passed_on), b"the rest")

    def test_a_reset_is_passed_on(self):
        for of_client in (True, False):
            with Backend() as backend, self.between(backend) as (client, passed_on, server):
                client.sendall(b"x")
                receive(passed_on, 1)
                one, other = (client, passed_on) if of_client else (passed_on, client)
                reset(one)
                with self.assertRaises(ConnectionResetError):
                    other.recv(1)
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_backends_take_turns(self):
        with Backend() as first, Backend() as second, self.proxy(first.address, second.address) as server:
            for _ in range(3):
                with self.connect(server), self.connect(server), first.accept(), second.accept():
                    pass

    def test_a_name_is_a_backend(self):
        with Backend() as backend, self.proxy(f"localhost:{backend.port}") as server:
            with self.connect(server) as client, backend.accept() as passed_on:
                client.sendall(b"hello")
                self.assertEqual(receive(passed_on, 5), b"hello")

    def test_a_backend_that_refuses_is_left_out_and_later_used_again(self):
        taken, absent = refused_address()
        with Backend() as backend, self.proxy(absent, backend.address, options=("--retry", "0.5")) as server:
            for _ in range(4):
                with self.connect(server) as client, backend.accept() as passed_on:
                    client.sendall(b"x")
                    self.assertEqual(receive(passed_on, 1), b"x")
            server.wait_until_said(f"proxy: {absent} is down: ")
            taken.close()
            with Backend(int(absent.rpartition(":")[2])) as back:

                def comes_back():
                    with self.connect(server):
                        return back.has_client()

                wait_until(comes_back, "the backend gets a client again")
            server.wait_until_said(f"proxy: {absent} is up\n")

    def test_a_backend_that_is_left_out_gets_no_client(self):
        taken, absent = refused_address()
        with Backend() as backend, self.proxy(absent, backend.address, options=("--retry", "600")) as server:
            with self.connect(server), backend.accept(), self.connect(server), backend.accept():
                server.wait_until_said(f"proxy: {absent} is down: ")
            taken.close()
            with Backend(int(absent.rpartition(":")[2])) as back:
                for _ in range(4):
                    with self.connect(server), backend.accept():
                        pass
                self.assertFalse(back.has_client())

    def test_without_any_backend_clients_are_reset(self):
        (_first, one), (_second, other) = refused_address(), refused_address()
        with self.proxy(one, other) as server:
            for _ in range(3):
                with contextlib.suppress(ConnectionResetError), self.connect(server) as client:
                    self.assertEqual(client.recv(1), b"it is reset", "and not ended cleanly")
            self.assertEqual(server.stderr().count("is down"), 2)
            self.assertEqual(server.stop(), 0)

    def test_a_stop_lets_clients_end(self):
        with Backend() as backend, self.between(backend) as (client, passed_on, server):
            client.sendall(b"before")
            self.assertEqual(receive(passed_on, 6), b"before")
            server.process.terminate()
            wait_until(lambda: self.is_refused(server.port), "no client is accepted any more")
            client.sendall(b"after")
            self.assertEqual(receive(passed_on, 5), b"after")
            client.close()
            self.assertEqual(receive_all(passed_on), b"")
            passed_on.close()
            backend.listener.close()  # resets those that have asked whether the proxy accepts
            self.assertEqual(server.ended(), 0, server.stderr())

    def is_refused(self, port):
        try:
            connect(port).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        return False

    def test_a_backend_that_does_not_read_slows_its_client(self):
        """What the proxy holds is bounded: the client's bytes stay with the client."""
        with Backend() as backend, self.between(backend) as (client, passed_on, server):
            client.settimeout(1)
            sent, text = 0, bytes(range(256)) * 256
            with contextlib.suppress(socket.timeout):
                while sent < 64 << 20:
                    sent += client.send(text)
            self.assertLess(sent, 64 << 20)
            server.wait_until_idle()
            client.settimeout(STEP_SECONDS)
            client.shutdown(socket.SHUT_WR)
            got = receive_all(passed_on)
            self.assertEqual(len(got), sent)
            self.assertTrue(got == (text * (sent // len(text) + 1))[:sent])

    def test_a_header_of_the_proxy_protocol_is_sent(self):
        with Backend() as backend, self.between(backend, ("--proxy-out", "1")) as (client, passed_on, server):
            port = client.getsockname()[1]
            line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {server.port}\r\n".encode()
            client.sendall(b"hello")
            self.assertEqual(receive(passed_on, len(line) + 5), line + b"hello")
        with Backend() as backend, self.between(backend, ("--proxy-out", "2")) as (client, passed_on, server):
            ends = 2 * socket.inet_aton("127.0.0.1")
            header = binary(ends + struct.pack("!HH", client.getsockname()[1], server.port))
            self.assertEqual(receive(passed_on, len(header)), header)

    def test_a_header_of_the_proxy_protocol_is_required_and_parsed(self):
        options = ("--proxy-in", "--proxy-out", "1")
        with Backend() as backend, self.proxy(backend.address, options=options) as server:
            for header, line in HEADERS:
                for pieces in ([header + b"hello"], [header, b"hello"], self.pieces(header + b"hello")):
                    with self.subTest(header=header), self.connect(server) as client:
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        for piece in pieces:
                            client.sendall(piece)
                            wait_until(lambda: self.is_read(client, server), "the proxy reads it")  # noqa: B023
                        port = client.getsockname()[1]
                        own = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {server.port}\r\n".encode()
                        with backend.accept() as passed_on:
                            expected = (line or own) + b"hello"
                            self.assertEqual(receive(passed_on, len(expected)), expected)

    def is_read(self, client, server):
        """Whether nothing of the client's is left in the proxy's socket, as the system lists it."""
        here, ports = socket.ntohl(0x7F000001), (server.port, client.getsockname()[1])
        ends = [f"{here:08X}:{port:04X}" for port in ports]
        sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return any(line[1:3] == ends and line[4].endswith(":00000000") for line in sockets)

    def pieces(self, data):
        source = random.Random(len(data))
        cuts = sorted({0, 3, 15, len(data), *(source.randrange(len(data)) for _ in range(3))})
        return [data[begin:end] for begin, end in zip(cuts, cuts[1:])]

    def test_what_is_no_header_of_the_proxy_protocol_ends_the_client(self):
        with Backend() as backend:
            with self.proxy(backend.address, options=("--proxy-in",)) as server:
                for header in REFUSED:
                    with self.subTest(header=header), self.connect(server) as client:
                        client.sendall(header)
                        self.assertTrue(is_closed_by_server(client))
                self.assertEqual(server.stop(), 0, server.stderr())
            self.assertFalse(backend.has_client())

    def test_a_client_that_sends_no_header_is_ended(self):
        with Backend() as backend, self.proxy(backend.address, options=("--proxy-in",)) as server:
            with self.connect(server) as client:
                client.sendall(LINE[:-1])
                self.assertTrue(is_closed_by_server(client))
            self.assertFalse(backend.has_client())

    def test_the_next_server_understands_it(self):
        """Two proxies: what the first one writes, the second one parses."""
        with Server(self.echo) as echo:
            with self.proxy(f"127.0.0.1:{echo.port}", options=("--proxy-in",)) as second:
                for version in "12":
                    options = ("--proxy-out", version)
                    with self.proxy(f"127.0.0.1:{second.port}", options=options) as first:
                        with self.connect(first) as client:
                            self.assertEqual(round_trip(client, b"hello"), b"hello")
