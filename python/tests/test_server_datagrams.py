"""Datagrams of a server in this process."""

from __future__ import annotations

import errno
import queue
import socket
import threading

import pytest
from serving import LONG, Serve, ask_where

from omnipoll import Datagram, DatagramSocket


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
    assert datagram.peername == (name.split(":")[0], int(name.split(":")[1]))
    assert datagram.sockname == (host, int(port))
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


class Later:
    """Answers from another thread, from the address that was asked."""

    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        to, local, reply = datagram.peername, datagram.local, datagram.local.encode()
        thread = threading.Thread(target=datagram.socket.send_to, args=(to, reply, local))
        thread.start()
        thread.join()


def test_any_thread_sends_at_any_time(serve: Serve) -> None:
    if serve.model == "thread":
        return
    server = serve(Later(), "udp:0.0.0.0:0", workers=1)
    port = int(server.addresses[0].rpartition(":")[2])
    for host in ("127.0.0.1", "127.0.0.2"):
        assert ask_where((host, port)) == f"{host}:{port}".encode()
    (sender,) = server.datagram_sockets
    assert sender == server.datagram_sockets[0]
    assert len({sender, server.datagram_sockets[0]}) == 1
    assert (sender.local, sender.sockname, sender.peer) == (f"0.0.0.0:{port}", ("0.0.0.0", port), None)
    assert repr(sender) == f"<omnipoll.DatagramSocket at 0.0.0.0:{port}>"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.bind(("127.0.0.1", 0))
        name = client.getsockname()
        sender.send_to(name, b"unasked")
        sender.send_to("{}:{}".format(*name), bytearray(b"as text"), local="127.0.0.2:0")
        assert client.recvfrom(100) == (b"unasked", ("127.0.0.1", port))
        assert client.recvfrom(100) == (b"as text", ("127.0.0.2", port))
        for wrong in ("nobody", ("nobody", 5), "127.0.0.1"):
            with pytest.raises(ValueError, match="no IP address"):
                sender.send_to(wrong, b"")
        with pytest.raises(TypeError):
            sender.send_to(5, b"")  # type: ignore[arg-type]
        with pytest.raises(OSError, match="65,507") as refused:
            sender.send_to(name, bytes(65_508))
        assert refused.value.errno == errno.EMSGSIZE
        with pytest.raises(OSError, match="not connected") as refused:
            sender.send(b"to nobody")
        assert refused.value.errno == errno.EDESTADDRREQ
        serve.end()
        assert not sender.is_open
        with pytest.raises(OSError, match="closed") as stale:
            sender.send_to(name, b"late")
        assert stale.value.errno == errno.ESTALE
    assert repr(sender) == "<omnipoll.DatagramSocket, closed>"


class Upstream:
    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[DatagramSocket, object]] = queue.Queue()

    def on_datagram(self, datagram: Datagram, data: bytes) -> None:
        self.calls.put((datagram.socket, data))

    def on_datagram_error(self, socket: DatagramSocket, error: OSError) -> None:
        socket.close()
        self.calls.put((socket, error))


def test_a_connected_socket_is_told_of_refusals(serve: Serve) -> None:
    if serve.model == "thread":
        return
    handler = Upstream()
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(LONG)
    peer.bind(("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed:
        passed.connect(peer.getsockname())
        server = serve(handler, f"fd:{passed.fileno()}", workers=1)
        while not server.datagram_sockets:
            pass
        (connected,) = server.datagram_sockets
        assert connected.peer == "{}:{}".format(*peer.getsockname())
        connected.send(b"question")
        assert peer.recv(100) == b"question"
        peer.sendto(b"answer", passed.getsockname())
    assert handler.calls.get(timeout=LONG) == (connected, b"answer")
    peer.close()
    connected.send(b"question")
    refused, error = handler.calls.get(timeout=LONG)
    assert refused == connected
    assert isinstance(error, ConnectionRefusedError)
    assert not connected.is_open
