"""What a loop opens: connections out, relays, datagram sockets; how its connections reach each other."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from conftest import LONG
from loops import ADDRESS, Recorder, Served, in_thread, pulled
from serving import Echo, ask, connect, read_all, receive

import omnipoll
from omnipoll import Connection, Datagram, Event, Loop


def test_two_loops_talk_to_each_other(engine: str) -> None:
    """One answers by handler, the other asks, pulled, in this thread."""
    with Served(engine, Echo()) as served, Loop(engine) as loop:
        connection = loop.connect(served.address, token="out")
        assert connection.write(b"early") is not None
        opened = pulled(loop, omnipoll.CONNECTED)
        assert opened.connection is connection
        assert opened.token == "out"
        assert connection.is_outgoing
        assert connection.peer == served.address
        received = b""
        while received != b"early":
            for event in loop.wait(LONG):
                received += event.data
        for number in range(100):
            message = b"%d" % number
            connection.write(message)
            received = b""
            while received != message:
                for event in loop.wait(LONG):
                    received += event.data
        connection.close()
        assert pulled(loop, omnipoll.CLOSED).error is None


class ToTheOther(Recorder):
    """Writes what it gets to all other connections, and asks whether that was done at once."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Connection] = []

    def on_open(self, connection: Connection) -> None:
        self.all.append(connection)

    def on_data(self, connection: Connection, data: bytes) -> None:
        for other in self.all:
            if other is not connection:
                assert other.write(data) == other.queued
                other.pause()
                assert other.is_paused
                other.resume()
                assert not other.is_paused
                other.set_idle_timeout(None)
                assert other.local == connection.local
                other.shutdown()
                with pytest.raises(BrokenPipeError):
                    other.write(b"after the end")


def test_connections_reach_each_other_at_once(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Served(engine, ToTheOther()) as served,
        connect(served.address) as one,
        connect(served.address) as two,
    ):
        while len(served.handler.all) < 2:
            pass
        one.sendall(b"hello")
        assert read_all(two) == b"hello"
    assert not caplog.records


def test_a_connect_that_fails_says_why(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = loop.connect(f"127.0.0.1:{port}")
    closed = pulled(loop, omnipoll.CLOSED)
    assert closed.connection is connection
    assert isinstance(closed.error, ConnectionRefusedError)
    assert f"127.0.0.1:{port}" in str(closed.error)
    assert not connection.is_open
    with pytest.raises(ValueError, match="address"):
        loop.connect("nonsense")
    with pytest.raises(OSError, match="not open yet"):
        _ = connection.peer


class Proxy:
    """Connects for each client, in a call of its, and relays."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def on_open(self, client: Connection) -> None:
        if client.is_outgoing:
            client.relay_to(client.token)
            client.token.relay_to(client)
            client.token.resume()
        else:
            client.pause()
            client.loop.connect(self.backend, self, token=client)

    def on_close(self, connection: Connection, error: OSError | None) -> None:
        if error is not None and connection.is_outgoing and connection.token.is_open:
            connection.token.abort()


def test_connecting_in_a_call_and_relaying(engine: str) -> None:
    backend = Served(engine, Echo())
    with backend, Served(engine, Proxy(backend.address)) as proxy, connect(proxy.address) as client:
        assert ask(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""


def test_an_on_close_tells_of_a_connect_that_failed(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    with Served(engine, Proxy(nobody)) as proxy, pytest.raises(ConnectionResetError):
        connect(proxy.address).recv(1)


def test_datagrams(engine: str) -> None:
    with Loop(engine) as loop, Loop(engine) as asking:
        address = loop.listen("udp:127.0.0.1:0", token="udp")
        ours = asking.connect_datagrams(address)
        ours.send(b"question")
        (question,) = loop.wait(LONG)
        assert (question.kind, question.data, question.token) == (omnipoll.DATAGRAM, b"question", "udp")
        assert question.peer == ours.local
        assert question.socket is not None and question.peer is not None
        assert question.socket in loop.datagram_sockets
        question.socket.send_to(question.peer, b"answer", question.local)
        assert [event.data for event in asking.wait(LONG)] == [b"answer"]


def test_many_connections(engine: str) -> None:
    count = 400
    with Served(engine, Echo()) as served, Loop(engine) as loop:
        messages = {loop.connect(served.address, token=number): b"%d" % number for number in range(count)}
        answers: dict[int, bytes] = {}
        while len(answers) < count:
            events = loop.wait(LONG)
            assert events
            for event in events:
                assert event.kind in (omnipoll.CONNECTED, omnipoll.DATA), event
                if event.kind == omnipoll.CONNECTED:
                    event.connection.write(messages[event.connection])
                else:
                    answers[event.token] = event.data
        assert answers == {number: b"%d" % number for number in range(count)}


class Grouped(Recorder):
    """Joins the group that its token names."""

    def on_open(self, connection: Connection) -> None:
        if connection.token:
            connection.join(connection.token)
        super().on_open(connection)

    def on_data(self, connection: Connection, data: bytes) -> None:
        connection.loop.broadcast(data, exclude=connection)


def test_a_broadcast_reaches_all_a_group_or_all_but_one(engine: str) -> None:
    """From another thread, and in a call; connections out are reached too."""
    handler = Grouped()
    with Loop(engine, handler=handler) as loop:
        addresses = loop.listen(ADDRESS, token="a"), loop.listen(ADDRESS, token="b")
        assert loop.broadcast(b"nobody") == 0

        def talk() -> None:
            try:
                with connect(addresses[0]) as one, connect(addresses[1]) as other:
                    while len(handler.calls) < 2:
                        pass
                    assert loop.broadcast(bytearray(b"to all")) == 2
                    assert loop.broadcast(b" to a", group="a") == 1
                    assert receive(one, 11) == b"to all to a"
                    assert receive(other, 6) == b"to all"
                    one.sendall(b"to the other")
                    assert receive(other, 12) == b"to the other"
                    with pytest.raises(ValueError, match="group"):
                        loop.broadcast(b"x", group="")
                    with pytest.raises(TypeError):
                        loop.broadcast("text")  # type: ignore[arg-type]
            finally:
                loop.stop(0)

        join = in_thread(talk)
        loop.run()
        join()
    with pytest.raises(ValueError, match="closed loop"):
        loop.broadcast(b"x")


def test_a_pulled_loop_broadcasts(engine: str) -> None:
    with Loop(engine, high_water=1000, low_water=0) as loop:
        address = loop.listen(ADDRESS)
        out = loop.connect(address)
        accepted = pulled(loop, omnipoll.ACCEPTED).connection
        while not out.is_open or loop.wait(0):
            pass
        out.join("those out")
        assert loop.broadcast(b"x", group="those out", exclude=out) == 0
        assert loop.broadcast(b"to it", group="those out") == 1
        data = pulled(loop, omnipoll.DATA)
        assert (data.connection, data.data) == (accepted, b"to it")
        out.leave("those out")
        assert loop.broadcast(b"x", group="those out") == 0
        assert loop.broadcast(bytes(1001), exclude=out) == 1
        assert pulled(loop, omnipoll.DRAINED).connection is accepted


class Ports(Recorder):
    """Listens on one more address for each connection, and reports which."""

    def on_open(self, connection: Connection) -> None:
        super().on_open(connection)
        if connection.token is None:
            address = connection.loop.listen(ADDRESS, token="one more")
            connection.write(address.encode() + b"\n")

    def on_event(self, loop: Loop, event: Event) -> None:
        self.calls.append(("listening", loop.listen(ADDRESS, Echo())))


def test_listening_in_a_call(engine: str) -> None:
    handler = Ports()
    with Served(engine, handler) as served:
        with connect(served.address) as client, connect(client.makefile().readline().strip()) as other:
            assert ask(other, b"hello") == b"hello"
        assert ("open", "one more") in handler.calls
        served.loop.poller.post("listen")
        while not (reported := [value for what, value in handler.calls if what == "listening"]):
            pass
        with connect(reported[0]) as client:
            assert ask(client, b"hello") == b"hello"


def test_what_can_not_be_listened_on_in_a_call(engine: str) -> None:
    class Wrong(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            loop = connection.loop
            with pytest.raises(ValueError, match="nonsense"):
                loop.listen("nonsense")
            with pytest.raises(OSError, match=connection.local) as caught:
                loop.listen(connection.local)
            assert caught.value.errno == errno.EADDRINUSE
            loop.stop(0)
            self.calls.append(("refused", None))

    handler = Wrong()
    with Loop(engine, handler=handler) as loop, connect(loop.listen(ADDRESS)):
        loop.run()
    assert ("refused", None) in handler.calls


def test_connecting_datagrams_in_calls_and_from_threads(engine: str) -> None:
    class Answer:
        """Asks another server, and passes on what it answers."""

        asked: Any = None

        def on_datagram(self, datagram: Datagram, data: bytes) -> None:
            if self.asked is None:
                self.asked = datagram
                loop.connect_datagrams(backend).send(data)
            else:
                self.asked.socket.send_to(self.asked.peer, data, self.asked.local)

    class Upper:
        def on_datagram(self, datagram: Datagram, data: bytes) -> None:
            datagram.reply(data.upper())

    with Loop(engine, handler=Answer()) as loop, Loop(engine) as asking:
        backend = loop.listen("udp:127.0.0.1:0", Upper())
        front = loop.listen("udp:127.0.0.1:0")

        def ask_it() -> list[bytes]:
            asking_here = Loop(engine)
            asking_here.connect_datagrams(front).send(b"question")
            answers = [event.data for event in asking_here.wait(LONG)]
            asking_here.close()
            loop.stop(0)
            return answers

        join = in_thread(ask_it)
        loop.run()
        assert join() == [b"QUESTION"]
        in_thread(lambda: asking.connect_datagrams(front))()
        assert len(asking.datagram_sockets) == 1
