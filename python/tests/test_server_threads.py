"""Connections of a server in this process, used by other threads."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable

import pytest
from serving import LONG, Recorder, Serve, connect, read_all, receive

from omnipoll import Connection


def test_other_threads_write(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        threads = [
            threading.Thread(target=lambda: [connection.write(b"0123456789") for _ in range(200)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert receive(client, 8000) == b"0123456789" * 800
        for thread in threads:
            thread.join(LONG)
        assert connection.writelines([b"good", bytearray(b"bye")]) >= 7
        connection.close()
        assert read_all(client) == b"goodbye"
    assert handler.closed() is None


def test_other_threads_end_our_direction(serve: Serve) -> None:
    """What was written before is sent, and what the peer sends afterwards still arrives."""

    class Last(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            self.calls.put(("data", data))

    handler = Last()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        connection.write(b"the last")
        connection.shutdown()
        with pytest.raises(BrokenPipeError):
            connection.write(b"more")
        assert read_all(client) == b"the last"
        client.sendall(b"still heard")
        received = b""
        while received != b"still heard":
            what, data = handler.next()
            assert what == "data"
            received += data
    assert handler.closed() is None


@pytest.mark.parametrize("which", ["idle", "read", "write"])
def test_other_threads_set_timeouts(serve: Serve, which: str) -> None:
    class Timed(Recorder):
        def on_timeout(self, connection: Connection, which: str) -> None:
            self.calls.put(("timeout", which))

    handler = Timed()
    with connect(serve(handler, write_timeout=None)) as client:
        connection = handler.opened()
        if which == "write":
            connection.write(bytes(8 << 20))  # More than the system takes.
        set_timeout = getattr(connection, f"set_{which}_timeout")
        with pytest.raises(ValueError, match="negative"):
            set_timeout(-1)
        set_timeout(60)
        set_timeout(0.01)
        assert handler.next() == ("timeout", which)
        with contextlib.suppress(ConnectionResetError):
            read_all(client)
    assert isinstance(handler.closed(), TimeoutError)


def test_a_connection_that_is_gone_is_stale(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        assert connection.is_open
        assert connection.fileno() >= 0
        connection.abort()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert isinstance(handler.closed(), ConnectionAbortedError)
    serve.end()
    attempts: list[Callable[[], object]] = [
        lambda: connection.write(b"x"),
        lambda: connection.writelines([b"x"]),
        lambda: connection.post(1),
        lambda: connection.join("a"),
        lambda: connection.leave("a"),
        connection.close,
        connection.abort,
        connection.pause,
        connection.resume,
        connection.shutdown,
        lambda: connection.queued,
        lambda: connection.set_idle_timeout(1),
        lambda: connection.set_read_timeout(None),
        lambda: connection.set_write_timeout(1),
        lambda: connection.set_timer(1),
        lambda: connection.set_frame_until(b"\n", 100),
        lambda: connection.set_frame_exactly(4),
        lambda: connection.set_frame_at_least(4),
        connection.set_frame_any,
        connection.restart_timeouts,
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="gone") as stale:
            attempt()
        assert stale.value.errno == errno.ESTALE
    assert not connection.is_open
    assert connection.fileno() == -1


def test_what_looks_into_a_connection_does_so_in_its_calls(serve: Serve) -> None:
    handler = Recorder()
    with connect(serve(handler)):
        connection = handler.opened()
        for look in (
            lambda: connection.queued,
            lambda: connection.local,
            lambda: connection.sockname,
            lambda: connection.is_paused,
            lambda: connection.has_ended,
            lambda: connection.is_stopping,
            lambda: connection.set_timer(1),
            connection.restart_timeouts,
            lambda: connection.send_file(0),
        ):
            with pytest.raises(PermissionError, match="call of the handler"):
                look()
    assert handler.closed() is None


def test_what_a_connection_says_of_itself(serve: Serve) -> None:
    class Curious(Recorder):
        def on_data(self, connection: Connection, data: bytes) -> None:
            assert not connection.is_paused
            connection.pause()
            assert connection.is_paused
            connection.resume()
            assert not connection.is_paused
            assert not connection.has_ended
            assert not connection.is_stopping
            assert connection.queued == 0
            assert socket.socket(fileno=os.dup(connection.fileno())).getsockname() == connection.sockname
            self.calls.put((connection.local, connection.peer, connection.fileno()))

    handler = Curious()
    server = serve(handler)
    with connect(server) as client:
        connection = handler.opened()
        client.sendall(b"x")
        local, peer, fd = handler.next()
        assert local == server.addresses[0]
        assert peer == "{}:{}".format(*client.getsockname())
        assert connection.peername == client.getsockname()
        assert socket.socket(fileno=os.dup(fd)).getsockname() == client.getpeername()
        assert connection.worker in range(2)
        assert repr(connection) == f"<omnipoll.Connection {connection.id} from {peer}>"
    assert handler.closed() is None
    assert connection.peer == peer


def test_a_value_is_posted(serve: Serve) -> None:
    class Posted(Recorder):
        def on_post(self, connection: Connection, value: int) -> None:
            self.calls.put((value, connection, connection.queued, threading.get_ident()))

    handler = Posted()
    with connect(serve(handler)):
        connection = handler.opened()
        for value in (1, -(2**63), 2**63 - 1):
            connection.post(value)
            posted, target, queued, thread = handler.next()
            assert (posted, target, queued) == (value, connection, 0)
            assert thread != threading.get_ident()
        with pytest.raises(OverflowError):
            connection.post(2**63)
        with pytest.raises(TypeError, match=r"an int, not \['job'\]"):
            connection.post(["job"])  # type: ignore[arg-type]
    assert handler.closed() is None


def test_a_paused_connection_hears_nothing(serve: Serve) -> None:
    class Paused(Recorder):
        def on_open(self, connection: Connection) -> None:
            super().on_open(connection)
            connection.pause()

        def on_data(self, connection: Connection, data: bytes) -> None:
            self.calls.put(("data", data))

        def on_post(self, connection: Connection, value: int) -> None:
            self.calls.put(("posted", value))

    handler = Paused()
    with connect(serve(handler)) as client:
        connection = handler.opened()
        client.sendall(b"hello")
        for value in range(3):  # Each is a turn of the loop, after the data came.
            connection.post(value)
            assert handler.next() == ("posted", value)
        connection.resume()
        assert handler.next() == ("data", b"hello")
        connection.pause()
        connection.resume()
        client.sendall(b"again")
        assert handler.next() == ("data", b"again")
    assert handler.closed() is None


def test_broadcast(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler)
    assert server.broadcast(b"nobody") == 0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(4)]
        for _ in clients:
            handler.opened()
        assert server.broadcast(bytearray(b"hello all")) == 4
        for client in clients:
            assert receive(client, 9) == b"hello all"
        with pytest.raises(TypeError):
            server.broadcast("text")  # type: ignore[arg-type]


def test_a_broadcast_reaches_a_group_or_all_but_one(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler)
    with contextlib.ExitStack() as stack:
        clients, connections = [], []
        for _ in range(3):
            clients.append(stack.enter_context(connect(server)))
            connections.append(handler.opened())
        first, second, third = connections
        assert server.broadcast(b"nobody", group="a") == 0
        for connection in (first, second, second):
            connection.join("a")
        third.join("\N{SNOWMAN}")
        assert server.broadcast(b"group", group="a") == 2
        assert server.broadcast(b" but", group="a", exclude=first) == 1
        assert server.broadcast(b"one", exclude=second) == 2
        assert server.broadcast(b"snow", group="\N{SNOWMAN}", exclude=None) == 1
        assert receive(clients[0], 8) == b"groupone"
        assert receive(clients[1], 9) == b"group but"
        assert receive(clients[2], 7) == b"onesnow"
        first.leave("a")
        first.leave("a")
        assert server.broadcast(b"again", group="a") == 1
        assert receive(clients[1], 5) == b"again"
        clients[1].close()
        assert handler.closed() is None
        assert server.broadcast(b"nobody", group="a") == 0
        for name in ("", "x" * 256, "\N{SNOWMAN}" * 86):
            with pytest.raises(ValueError, match="1 to 255"):
                first.join(name)
            with pytest.raises(ValueError, match="1 to 255"):
                server.broadcast(b"x", group=name)
        with pytest.raises(TypeError):
            first.join(b"a")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            server.broadcast(b"x", exclude=first.id)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            server.broadcast(b"x", "a")  # type: ignore[call-arg]
        for number in range(64):
            first.join(str(number))
        with pytest.raises(OSError, match="64 groups") as full:
            first.join("one more")
        assert full.value.errno == errno.ENOBUFS
        first.join("63")


class Rooms(Recorder):
    """Has clients join and leave what they name, in a call of the handler."""

    def on_data(self, connection: Connection, data: bytes) -> None:
        name = data.decode()
        if name.startswith("-"):
            connection.leave(name[1:])
        else:
            connection.join(name)
        connection.write(b"ok")


def test_a_handler_joins_and_leaves(serve: Serve) -> None:
    server = serve(Rooms())
    with connect(server) as client:
        for name, members in ((b"a", 1), (b"b", 1), (b"-a", 0)):
            client.sendall(name)
            assert receive(client, 2) == b"ok"
            assert server.broadcast(b"", group="a") == members


def test_a_broadcast_passes_over_a_client_without_room(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler, queue_limit=1000)
    with connect(server):
        handler.opened()
        assert server.broadcast(bytes(1001)) == 0
    assert server.stats().total.writes_refused == 1
