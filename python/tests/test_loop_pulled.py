"""A loop that is pulled: what its waits return."""

from __future__ import annotations

import os
import socket

import pytest
from conftest import LONG, stale
from loops import ADDRESS, in_thread, pulled
from serving import connect, receive

import omnipoll
from omnipoll import Connection, Loop


def test_echo_pulled(loop: Loop) -> None:
    token = object()
    with connect(loop.listen(ADDRESS, token=token)) as client:
        accepted = pulled(loop, omnipoll.ACCEPTED)
        assert accepted.token is token
        assert accepted.connection.token is token
        assert accepted.connection.loop is loop
        assert not accepted.connection.is_outgoing
        client.sendall(b"hello")
        data = pulled(loop, omnipoll.DATA)
        assert data.data == b"hello"
        assert data.connection is accepted.connection
        assert data.token is token
        loop.wait(0)  # The ring sends small writes when the loop waits.
        assert client.recv(100) == b"hello"
        client.shutdown(socket.SHUT_WR)
        closed = pulled(loop, omnipoll.CLOSED)
        assert closed.connection is accepted.connection
        assert closed.error is None
        stale(lambda: closed.connection.write(b"more"))


def test_more_events_than_asked_for_come_with_the_next_wait(loop: Loop) -> None:
    for number in range(5):
        loop.poller.post(number)
    assert [event.token for event in loop.wait(LONG, max_events=2)] == [0, 1]
    assert [event.token for event in loop.wait(LONG, 2)] == [2, 3]
    assert [event.token for event in loop.wait(LONG)] == [4]
    assert loop.wait(0) == []
    with pytest.raises(ValueError, match="max_events"):
        loop.wait(0, max_events=0)
    with pytest.raises(ValueError, match="negative"):
        loop.wait(-1)


def test_much_data_is_returned_in_pieces(loop: Loop) -> None:
    """More than a wait has room for, on several connections at once."""
    address = loop.listen(ADDRESS)
    sent = {token: os.urandom(200 << 10) for token in range(16)}
    received = {token: bytearray() for token in sent}
    clients = [loop.connect(address, token=token) for token in sent]
    accepted: list[Connection] = []
    while len(accepted) < len(clients):
        accepted += [event.connection for event in loop.wait(LONG) if event.kind == omnipoll.ACCEPTED]
    for client in clients:
        client.write(sent[client.token])
        client.close()
    ends = 0
    of_peer = {client.local: client.token for client in clients}
    while ends < len(clients):
        events = loop.wait(LONG)
        assert sum(len(event.data) for event in events) <= 256 << 10
        for event in events:
            if event.kind == omnipoll.DATA:
                received[of_peer[event.connection.peer]] += event.data
            elif event.kind == omnipoll.ENDED:
                event.connection.close()
                ends += 1
    assert received == sent


def test_what_is_done_between_waits_is_done_at_once(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        connection = pulled(loop, omnipoll.ACCEPTED).connection
        big = bytes(64 << 10)  # Small ones the ring sends when the loop waits.
        assert connection.write(big) == connection.queued == 0
        assert receive(client, len(big)) == big
        connection.pause()
        assert connection.is_paused
        client.sendall(b"unread")
        assert loop.wait(0.02) == []
        connection.resume()
        assert pulled(loop, omnipoll.DATA).data == b"unread"
        connection.set_timer(0.001)
        assert pulled(loop, omnipoll.CONN_TIMER).connection is connection
        connection.post(7)
        assert pulled(loop, omnipoll.CONN_POST).value == 7
        in_thread(lambda: connection.write(b"from a thread"))()
        loop.wait(0.02)
        assert client.recv(100).endswith(b"from a thread")
        with pytest.raises(PermissionError, match="its own thread"):
            in_thread(lambda: connection.queued)()


def test_a_stop_pulled(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        pulled(loop, omnipoll.ACCEPTED)
        loop.stop()
        pulled(loop, omnipoll.STOPPING).connection.close()
        client.close()
        assert pulled(loop, omnipoll.CLOSED).error is None
    assert loop.wait() == []
    with pytest.raises(ValueError, match="stopped"):
        loop.listen(ADDRESS)
