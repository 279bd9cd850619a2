"""The header of the PROXY protocol, version 1 (a line of text) and version 2 (binary), by which a proxy
passes on to the next server what has connected to it, and where.

What comes is parsed strictly: a program that takes the header believes it, so it accepts nothing that the
protocol's description doesn't allow (haproxy.org/download/2.8/doc/proxy-protocol.txt).
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE = 107
LONGEST = 4096  # That is accepted: version 2 has room for more than addresses.


class Endpoints(NamedTuple):
    """What has connected to what: addresses of 4 bytes or of 16, with ports."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int


def parse(data: bytes) -> tuple[int, Endpoints | None]:
    """Looks for a header where a connection begins.

    Returns its length, 0 while it is not whole, and the endpoints, None where they are not known or not by
    IP. Raises ValueError when it is none. Nothing longer than LONGEST is ever waited for.
    """
    if data.startswith(SIGNATURE):
        return _parse_binary(data)
    if data.startswith(b"PROXY "):
        return _parse_line(data)
    if SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return 0, None
    raise ValueError("no header of the PROXY protocol")


def _parse_line(data: bytes) -> tuple[int, Endpoints | None]:
    length = data.find(b"\n", 0, LONGEST_LINE) + 1
    if length == 0 and len(data) < LONGEST_LINE:
        return 0, None
    line, end = data[: length - 2], data[length - 2 : length]
    if end != b"\r\n" or b"\r" in line or b"\0" in line:
        raise ValueError("no line")
    _, protocol, *words = line.split(b" ")
    if protocol == b"UNKNOWN":
        return length, None
    if protocol not in (b"TCP4", b"TCP6") or len(words) != 4:
        raise ValueError("no line of the PROXY protocol")
    family = socket.AF_INET if protocol == b"TCP4" else socket.AF_INET6
    source, destination = (_address(family, word) for word in words[:2])
    return length, Endpoints(source, destination, *map(_port, words[2:]))


def _address(family: socket.AddressFamily, word: bytes) -> bytes:
    try:
        return socket.inet_pton(family, word.decode("ascii"))
    except OSError as error:
        raise ValueError("no address") from error


def _port(word: bytes) -> int:
    """Decimal, without a sign or a leading zero."""
    if not re.fullmatch(rb"0|[1-9][0-9]{0,4}", word) or int(word) > 65535:
        raise ValueError("no port")
    return int(word)


def _parse_binary(data: bytes) -> tuple[int, Endpoints | None]:
    # The command: 0 is LOCAL, of the proxy itself, whose addresses mean nothing; 1 is PROXY.
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise ValueError("another version or command")
    if len(data) > 13 and not _is_family(data[13]):
        raise ValueError("no family")
    if len(data) < 16:
        return 0, None
    is_local, family = data[12] == 0x20, data[13] >> 4
    length = 16 + int.from_bytes(data[14:16], "big")
    end = 16 + (0, 12, 36, 216)[family]  # Of the addresses: unspecified, IPv4, IPv6, unix.
    if length > LONGEST or (length < end and not is_local):
        raise ValueError("no length")
    if len(data) < length:
        return 0, None
    if is_local or family == 0:
        return length, None
    _check_values(data[end:length])
    return length, _endpoints(data[16:end]) if family < 3 else None


def _is_family(byte: int) -> bool:
    """Unspecified, or a family and a protocol: IPv4, IPv6 or unix, and stream or datagram."""
    return byte == 0 or (byte >> 4 in (1, 2, 3) and byte & 15 in (1, 2))


def _endpoints(data: bytes) -> Endpoints:
    size = len(data) // 2 - 2
    ports = (int.from_bytes(data[at : at + 2], "big") for at in (2 * size, 2 * size + 2))
    return Endpoints(data[:size], data[size : 2 * size], *ports)


def _check_values(data: bytes) -> None:
    """What follows the addresses: type, length and value, one after another."""
    while data:
        length = 3 + int.from_bytes(data[1:3], "big")
        if len(data) < length:
            raise ValueError("a value that is not whole")
        data = data[length:]


def endpoints_of(peer: object, local: object) -> Endpoints | None:
    """Of a connection, whose addresses are as the socket module has them."""
    if not (isinstance(peer, tuple) and isinstance(local, tuple)) or len(peer) != len(local):
        return None
    family = socket.AF_INET if len(peer) == 2 else socket.AF_INET6
    source, destination = (socket.inet_pton(family, address[0]) for address in (peer, local))
    return Endpoints(source, destination, peer[1], local[1])


def write(version: int, ends: Endpoints | None) -> bytes:
    """A header of version 1 or 2."""
    return _line(ends) if version == 1 else _binary(ends)


def _line(ends: Endpoints | None) -> bytes:
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    family, name = (socket.AF_INET, "TCP4") if len(ends.source) == 4 else (socket.AF_INET6, "TCP6")
    source, destination = (socket.inet_ntop(family, address) for address in ends[:2])
    return f"PROXY {name} {source} {destination} {ends.source_port} {ends.destination_port}\r\n".encode()


def _binary(ends: Endpoints | None) -> bytes:
    if ends is None:
        return SIGNATURE + b"\x21\0\0\0"
    ports = b"".join(port.to_bytes(2, "big") for port in ends[2:])
    addresses = ends.source + ends.destination + ports
    family = 0x11 if len(ends.source) == 4 else 0x21
    return SIGNATURE + bytes((0x21, family)) + len(addresses).to_bytes(2, "big") + addresses
