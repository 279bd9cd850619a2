"""Datagrams of a server in this process."""

from __future__ import annotations

import errno
import socket

import pytest
from serving import LONG, Serve, ask_where

from omnipoll import Datagram


class Datagrams:
    def __init__(self) -> None:
        self.kept: list[Datagram] = []

    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        assert data != b"stumble"
        self.kept.append(datagram)
        datagram.reply(data)
        datagram.send_to(datagram.peer, bytearray(data.upper()))
        with pytest.raises(ValueError, match="no IP address"):
            datagram.send_to("nobody", data)
        with pytest.raises(OSError, match=r".") as refused:
            datagram.reply(bytes(65_508))
        assert refused.value.errno == errno.EMSGSIZE


def test_datagrams(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Datagrams()
    if serve.model == "thread":
        with pytest.raises(OSError, match="datagram") as refused:
            serve(handler, "udp:127.0.0.1:0")
        assert refused.value.errno == errno.ENOTSUP
        return
    server = serve(handler, "udp:127.0.0.1:0")
    host, port = server.addresses[0].partition("udp:")[2].split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.connect((host, int(port)))
        client.send(b"stumble")
        client.send(b"hello")
        assert client.recv(100) == b"hello"
        assert client.recv(100) == b"HELLO"
        name = "{}:{}".format(*client.getsockname())
    serve.end()
    (datagram,) = handler.kept
    assert datagram.peer == name
    assert datagram.local == f"{host}:{port}"
    assert repr(datagram) == f"<omnipoll.Datagram from {name}>"
    with pytest.raises(OSError, match="on_datagram") as stale:
        datagram.reply(b"late")
    assert stale.value.errno == errno.ESTALE
    assert [record.getMessage() for record in caplog.records] == [f"exception in on_datagram for {name}"]
    total = server.stats().total
    assert (total.datagrams_in, total.datagrams_out) == (2, 2)


class Whereabouts:
    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        datagram.reply(datagram.local.encode())


def test_a_datagram_has_the_address_that_was_asked(serve: Serve) -> None:
    """The answer comes from there: a connected client receives no other."""
    if serve.model == "thread":
        return
    for address in ("udp:0.0.0.0:0", "udp:*:0"):
        port = int(serve(Whereabouts(), address).addresses[0].rpartition(":")[2])
        for host in ("127.0.0.1", "127.0.0.2"):
            assert ask_where((host, port)) == f"{host}:{port}".encode()


def test_an_inherited_datagram_socket_is_served(serve: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed:
        passed.bind(("127.0.0.1", 0))
        host, port = passed.getsockname()
        if serve.model == "thread":
            with pytest.raises(OSError, match="datagram") as refused:
                serve(Whereabouts(), f"fd:{passed.fileno()}")
            assert refused.value.errno == errno.ENOTSUP
            return
        server = serve(Whereabouts(), f"fd:{passed.fileno()}")
    assert server.addresses == [f"udp:{host}:{port}"]
    assert ask_where((host, port)) == f"{host}:{port}".encode()
