"""python/examples/proxy.py: clients are passed on to backends; the PROXY protocol's header."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from serving import LONG, connect, read_all, receive, refused, talk

import omnipoll

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# Version 2: PROXY, over TCP and IPv4, 192.0.2.1:7000 to 192.0.2.2:80.
IPV4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 7000, 80)
LINE = b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 80\r\n"
LINE6 = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"
IPV6 = b"".join(socket.inet_pton(socket.AF_INET6, name) for name in ("2001:db8::1", "::1"))


def binary(addresses: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    length = len(addresses) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", length) + addresses


# What is accepted, and the line that is made of it. None: of the connection's own addresses.
HEADERS = (
    (LINE, LINE),
    (LINE6, LINE6),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN and whatever else 1 2\r\n", None),
    (b"PROXY UNKNOWN " + 91 * b"x" + b"\r\n", None),  # The longest line: 107 bytes.
    (binary(IPV4), LINE),
    (binary(IPV6 + struct.pack("!HH", 0, 65535), family=0x21), LINE6),
    (binary(IPV4 + b"\x04\0\x02xx" + b"\x20\0\0"), LINE),  # With values behind the addresses.
    (binary(216 * b"u", family=0x31), None),
    (binary(b"", command=0x20, family=0), None),  # Of the proxy before us: it looks whether we are well.
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
    b"PROXY TCP4 192.0.2.1 192.0.2.2 7_000 80\r\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 \N{FULLWIDTH DIGIT ONE} 80\r\n".encode(),
    b"PROXY TCP4 192.0.2.1 192.0.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 ::1 7000 80\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1\0 192.0.2.2 7000 80\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 70\r00 80\r\n",
    b"PROXY TCP4 192.0.2.\xb9 192.0.2.2 7000 80\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 7000 80\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN " + 92 * b"x" + b"\r\n",
    SIGNATURE[:-1] + b"X",
    binary(IPV4, command=0x11),  # Another version.
    binary(IPV4, command=0x22),  # Another command.
    binary(IPV4, family=0x41),
    binary(IPV4, family=0x13),
    binary(IPV4, family=0x01),
    binary(IPV4[:-1]),
    binary(IPV4, family=0x21),
    binary(IPV4 + b"\x04\0"),  # A value that is not whole.
    binary(IPV4 + b"\x04\0\x03xx"),
    binary(IPV4, length=65535),  # More than anybody sends.
)


@contextlib.contextmanager
def backend(name: bytes) -> Iterator[str]:
    """Answers a whole request with its name and the request."""

    class Answer:
        def on_open(self, connection: Any) -> None:
            connection.request = name

        def on_data(self, connection: Any, data: bytes) -> None:
            connection.request += data

        def on_end(self, connection: Any) -> None:
            connection.write(connection.request)
            connection.close()

    with omnipoll.Server(Answer(), "127.0.0.1:0") as server:
        yield server.addresses[0]


@contextlib.contextmanager
def proxy(
    engine: str, *backends: str, options: Sequence[str] = ()
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    program = [sys.executable, str(EXAMPLES / "proxy.py"), "--engine", engine, *options]
    command = [*program, "127.0.0.1:0", *backends]
    with subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().split()[-1], process
        finally:
            process.kill()


def test_a_proxy_takes_turns(engine: str) -> None:
    """A half-close goes through, and the answer comes back."""
    big = bytes(1_000_000)
    with backend(b"one ") as one, backend(b"two ") as two, proxy(engine, one, two) as (address, _):
        answers = {talk(address, b"hello"), talk(address, b"hello")}
        assert answers == {b"one hello", b"two hello"}
        assert talk(address, big)[4:] == big


def test_a_proxy_leaves_out_who_is_not_there(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = "{}:{}".format(*listener.getsockname())
    with backend(b"one ") as one, proxy(engine, nobody, one) as (address, process):
        for _ in range(3):
            assert talk(address, b"hello") == b"one hello"
        process.send_signal(signal.SIGTERM)
        _, complained = process.communicate(timeout=LONG)
    # Once: after that it is left out.
    assert complained.decode().count("refused") == 1
    with proxy(engine, nobody) as (address, _), pytest.raises(ConnectionResetError):
        talk(address, b"hello")


def test_a_proxy_passes_resets_on(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = "{}:{}".format(*listener.getsockname())
        with proxy(engine, name) as (address, _), connect(address) as client:
            served, _ = listener.accept()
            served.settimeout(LONG)
            client.sendall(b"hello")
            assert receive(served, 5) == b"hello"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with served, pytest.raises(ConnectionResetError):
                served.recv(1)


def test_a_proxy_lets_its_connections_finish(engine: str) -> None:
    with backend(b"one ") as one, proxy(engine, one) as (address, process), connect(address) as client:
        client.sendall(b"hel")
        process.send_signal(signal.SIGTERM)
        refused(address)
        client.sendall(b"lo")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"one hello"
        client.close()
        assert process.wait(LONG) == 0


# ---- The PROXY protocol ----------------------------------------------------------------------


@contextlib.contextmanager
def between(engine: str, *options: str) -> Iterator[tuple[str, socket.socket]]:
    """A proxy's address, and a listening socket that is its backend."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        name = "{}:{}".format(*listener.getsockname())
        with proxy(engine, name, options=options) as (address, _):
            yield address, listener


def accept(listener: socket.socket) -> socket.socket:
    served, _ = listener.accept()
    served.settimeout(LONG)
    return served


def line_of(client: socket.socket) -> bytes:
    """What is written of a connection's own addresses."""
    source, destination = client.getsockname(), client.getpeername()
    return f"PROXY TCP4 {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def is_read(client: socket.socket) -> bool:
    """Whether nothing of the client's is left in the proxy's socket, as the system lists it."""
    here = socket.ntohl(0x7F000001)
    ends = [f"{here:08X}:{name[1]:04X}" for name in (client.getpeername(), client.getsockname())]
    sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    return any(line[1:3] == ends and line[4].endswith(":00000000") for line in sockets)


def pieces(data: bytes) -> list[bytes]:
    source = random.Random(len(data))
    cuts = sorted({0, 3, 15, len(data), *(source.randrange(len(data)) for _ in range(3))})
    return [data[begin:end] for begin, end in zip(cuts, cuts[1:])]


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_header_is_sent(engine: str, version: str) -> None:
    with between(engine, "--proxy-out", version) as (address, listener), connect(address) as client:
        header = line_of(client)
        if version == "2":
            ports = struct.pack("!HH", client.getsockname()[1], client.getpeername()[1])
            header = binary(2 * socket.inet_aton("127.0.0.1") + ports)
        client.sendall(b"hello")
        with accept(listener) as served:
            assert receive(served, len(header) + 5) == header + b"hello"


def test_a_client_of_a_unix_socket_is_unknown(engine: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        name = "{}:{}".format(*listener.getsockname())
        program = [sys.executable, str(EXAMPLES / "proxy.py"), "--engine", engine, "--proxy-out", "1"]
        command = [*program, f"unix:{tmp_path}/proxy", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().decode().split()[-1]
                with connect(address), accept(listener) as served:
                    assert receive(served, 15) == b"PROXY UNKNOWN\r\n"
            finally:
                process.kill()


def test_a_header_is_required_and_parsed(engine: str) -> None:
    """Together with what follows, and in pieces, each of which the proxy has read before the next."""
    with between(engine, "--proxy-in", "--proxy-out", "1") as (address, listener):
        for header, line in HEADERS:
            for parts in ([header + b"hello"], [header, b"hello"], pieces(header + b"hello")):
                with connect(address) as client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for part in parts:
                        client.sendall(part)
                        while not is_read(client):
                            pass
                    expected = (line or line_of(client)) + b"hello"
                    with accept(listener) as served:
                        assert receive(served, len(expected)) == expected, header


def test_what_is_no_header_ends_the_client(engine: str) -> None:
    with between(engine, "--proxy-in") as (address, listener):
        for header in REFUSED:
            with connect(address) as client, pytest.raises(ConnectionResetError):
                client.sendall(header)
                assert client.recv(1) == b"a reset", header
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_client_that_sends_no_header_is_ended() -> None:
    with between("auto", "--proxy-in") as (address, _), connect(address) as client:
        client.sendall(LINE[:-1])
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_next_proxy_understands_it(engine: str, version: str) -> None:
    out, in_ = ("--proxy-out", version), ("--proxy-in",)
    with (
        backend(b"one ") as one,
        proxy(engine, one, options=in_) as (second, _),
        proxy(engine, second, options=out) as (first, _),
    ):
        assert talk(first, b"hello") == b"one hello"


def test_a_connection_has_the_addresses_of_its_header(engine: str) -> None:
    class Say:
        def on_open(self, connection: Any) -> None:
            connection.write(f"{connection.peer} at {connection.sockname}".encode())
            connection.close()

    with omnipoll.Server(Say(), "127.0.0.1:0", engine=engine, proxy_header=LONG) as server:
        for header in (LINE, binary(IPV4)):
            assert talk(server.addresses[0], header) == b"192.0.2.1:7000 at ('192.0.2.2', 80)"
        with connect(server.addresses[0]) as client:
            client.sendall(b"hello")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert server.stats().total.refused_header == 1


def test_there_are_two_versions(engine: str) -> None:
    class Out:
        def on_open(self, connection: Any) -> None:
            with pytest.raises(ValueError, match="versions 1 and 2"):
                connection.write_proxy_header(3)
            connection.write_proxy_header(2, None)
            connection.close()

    with omnipoll.Server(Out(), "127.0.0.1:0", engine=engine) as server:
        assert talk(server.addresses[0], b"") == binary(b"", family=0)
