"""Servers in this process, under reactor, cores and thread, on every engine: their run, stop and options."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ENGINES
from prometheus_client.parser import text_string_to_metric_families
from serving import FORKING, LONG, Echo, Recorder, Serve, ask, connect, refused

import omnipoll
from omnipoll import Connection, Server

# ---- Lifecycle -----------------------------------------------------------------------------


def test_stop_drains(serve: Serve) -> None:
    class Draining(Recorder):
        def on_stop(self, connection: Connection) -> None:
            self.calls.put(("stop", connection, connection.is_stopping))

    handler = Draining()
    server = serve(handler)
    with connect(server) as client:
        connection = handler.opened()
        server.stop(LONG)
        assert handler.next() == ("stop", connection, True)
        refused(server.addresses[0])
        assert ask(client, b"still there") == b"still there"
    call: tuple[Any, ...] = ()
    while call[:2] != ("close", connection):  # Others may have come in the last moment.
        call = handler.next()
    assert call[2] is None


def test_when_the_drain_is_over_connections_are_reset(serve: Serve) -> None:
    handler = Recorder()
    server = serve(handler, drain=0.05)
    with connect(server) as client:
        handler.opened()
        serve.end()
        error = handler.closed()
        assert error is not None
        assert error.errno == errno.ECANCELED
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_stop_before_run_counts(model: str, engine: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=model, engine=engine)
    server.stop()
    server.run()
    with pytest.raises(ValueError, match="runs once"):
        server.run()


def test_a_handler_stops_its_server(model: str, engine: str) -> None:
    class Once(Echo):
        server: Server

        def on_close(self, connection: Connection, error: OSError | None) -> None:
            self.server.stop()

    handler = Once()
    server = handler.server = Server(handler, "127.0.0.1:0", model=model, engine=engine)
    thread = threading.Thread(target=server.run)
    thread.start()
    with connect(server) as client:
        assert ask(client, b"x") == b"x"
    thread.join(LONG)
    assert not thread.is_alive()


def test_the_with_block_raises_what_run_raises(model: str, engine: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=model, engine=engine)
    server.stop()
    server.run()
    with pytest.raises(ValueError, match="runs once"), server:
        pass


def test_an_exception_in_the_with_block_comes_out(model: str, engine: str) -> None:
    with pytest.raises(LookupError), Server(Echo(), "127.0.0.1:0", model=model, engine=engine):
        raise LookupError


@pytest.mark.parametrize("forking", FORKING)
def test_a_with_block_does_not_fork(engine: str, forking: str) -> None:
    server = Server(Echo(), "127.0.0.1:0", model=forking, engine=engine)
    with pytest.raises(RuntimeError, match="run"), server:
        pass
    with pytest.raises(OSError, match="share no memory") as refused:
        server.broadcast(b"x")
    assert refused.value.errno == errno.ENOTSUP


def test_listeners_are_handed_over(serve: Serve) -> None:
    old = serve(Echo())
    fd = old.dup_listener()
    with pytest.raises(FileNotFoundError):
        old.dup_listener(1)
    new = serve(Echo(), f"fd:{fd}")
    assert new.addresses == old.addresses
    old.stop()
    old._thread.join(LONG)  # type: ignore[union-attr]
    with connect(new) as client:
        assert ask(client, b"hello") == b"hello"
    os.close(fd)


def test_the_file_of_a_unix_socket_is_removed_or_kept(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for kept in (False, True):
        old = serve(Echo(), f"unix:{path}")
        fd = old.dup_listener()
        if kept:
            old.keep_files()
        old.stop()
        old._thread.join(LONG)  # type: ignore[union-attr]
        assert path.exists() == kept
        if kept:
            new = serve(Echo(), f"fd:{fd}")
            with connect(old.addresses[0]) as client:
                assert ask(client, b"hello") == b"hello"
            new.stop()
            new._thread.join(LONG)  # type: ignore[union-attr]
            assert path.exists()
        os.close(fd)


def test_several_addresses(serve: Serve, tmp_path: Path) -> None:
    server = serve(Echo(), ["127.0.0.1:0", f"unix:{tmp_path}/socket"])
    assert server.addresses[1] == f"unix:{tmp_path}/socket"
    for address in server.addresses:
        with connect(address) as client:
            assert ask(client, b"hello") == b"hello"


def test_a_unix_socket_without_a_file(serve: Serve) -> None:
    name = f"unix:@omnipoll-{os.getpid()}-{serve.model}-{serve.engine}"
    handler = Recorder()
    server = serve(handler, name)
    assert server.addresses == [name]
    with connect(name) as client:
        connection = handler.opened()
        assert (connection.peer, connection.peername) == ("unix:", "")
        assert ask(client, b"hello") == b"hello"


# ---- Mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "threads"}, "no model named 'threads'"),
        ({"engine": "kpoll"}, "no engine named 'kpoll'"),
        ({"workers": 0}, "worker"),
        ({"max_clients": 0}, "client"),
        ({"low_water": 2, "high_water": 1}, "low mark"),
        ({"linger": -1}, "linger must not be negative"),
        ({"drain": -0.5}, "drain must not be negative"),
        ({"idle_timeout": float("nan")}, "idle_timeout must be a number"),
        ({"address": "nowhere"}, "no port"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Server(Echo(), **options)


def test_a_stranger_among_the_options() -> None:
    with pytest.raises(TypeError):
        Server(Echo(), colour="blue")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Server()  # type: ignore[call-arg]


def test_what_a_server_says_of_itself() -> None:
    server = Server(Echo(), model="cores", workers=3, engine="poll", drain=None)
    assert server.addresses == []
    assert server.drain is None
    address = server.listen("127.0.0.1:0")
    assert server.addresses == [address]
    assert repr(server) == f"<omnipoll.Server cores on poll: {address}>"
    assert len(server.stats().workers) == 3
    assert "accepted: 0" in repr(server.stats())
    assert "accepted: 0" in repr(server.stats().total)
    with pytest.raises(OSError, match=r".") as taken:
        Server(Echo(), address)
    assert taken.value.errno == errno.EADDRINUSE
    assert Server(Echo()).engine == omnipoll.Poller().engine


def test_statistics_for_prometheus(serve: Serve) -> None:
    server = serve(Echo())
    with connect(server) as client:
        assert ask(client, b"hello") == b"hello"
    serve.end()
    stats = server.stats()
    families = {family.name: family for family in text_string_to_metric_families(stats.prometheus())}
    assert families["omnipoll_server_active"].type == "gauge"
    assert families["omnipoll_server_received_bytes"].type == "counter"
    for name, total in (("accepted", 1), ("active", 0), ("received_bytes", 5), ("sent_bytes", 5)):
        samples = families[f"omnipoll_server_{name}"].samples
        assert sum(sample.value for sample in samples) == total
        assert [sample.labels["worker"] for sample in samples] == [str(n) for n in range(len(stats.workers))]


def test_every_engine_is_tried() -> None:
    assert [Server(Echo(), engine=engine).engine for engine in ENGINES] == list(ENGINES)
