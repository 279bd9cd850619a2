"""The bytes of a pulled loop's events: copies that stay, and views until the next wait."""

from __future__ import annotations

import gc
import os
import socket
import weakref

import pytest
from conftest import LONG
from loops import ADDRESS, in_thread, pulled
from serving import connect, receive

import omnipoll
from omnipoll import Loop, LoopEvent


def data_of(loop: Loop, client: socket.socket, sent: bytes) -> LoopEvent:
    """Sends it, and waits for the event that has all of it."""
    client.sendall(sent)
    while True:
        for event in loop.wait(LONG):
            if event.kind == omnipoll.DATA:
                assert event.data == sent
                return event


def test_a_view_has_the_bytes_of_an_event(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        event = data_of(loop, client, b"hello")
        view = event.view
        assert (view.tobytes(), view.readonly, view.format, view.nbytes) == (b"hello", True, "B", 5)
        assert view[1:3].tobytes() == b"el"
        assert event.data == b"hello"
        assert event.data is event.data
        with pytest.raises(TypeError):
            view[0] = 1
        event.connection.write(view)
        loop.wait(0)
        assert receive(client, 5) == b"hello"
        loop.poller.post(1)
        (post,) = loop.wait(LONG)
        assert (post.data, post.view.tobytes()) == (b"", b"")


def test_the_next_wait_ends_a_view(loop: Loop) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        view = data_of(loop, client, b"first").view
        with data_of(loop, client, b"other").view as released:
            with pytest.raises(ValueError, match="released"):
                view.tobytes()
            assert released.tobytes() == b"other"
        assert loop.wait(0) == []


def test_data_stays_whatever_the_program_has_asked_for(loop: Loop) -> None:
    """The buffer is filled again, and the events are as they were."""
    with connect(loop.listen(ADDRESS)) as client:
        events = [data_of(loop, client, b"%d" % number) for number in range(10)]
        never_asked: list[LoopEvent] = []
        for number in range(10):
            client.sendall(b"%d" % number)
            never_asked += loop.wait(LONG)
        loop.wait(0)
        assert [event.data for event in events] == [b"%d" % number for number in range(10)]
        assert [event.view.tobytes() for event in events] == [event.data for event in events]
        assert b"".join(event.data for event in never_asked) == b"0123456789"
        loop.close()
        assert events[-1].view.tobytes() == b"9"


@pytest.mark.parametrize("kind", ["slice", "cast", "array", "iterator"])
def test_a_wait_is_refused_while_something_uses_the_bytes(loop: Loop, kind: str) -> None:
    with connect(loop.listen(ADDRESS)) as client:
        view = data_of(loop, client, b"12345678").view
        make = {
            "slice": lambda: view[2:4],
            "cast": lambda: view.cast("H"),
            "array": lambda: memoryview(view),
            "iterator": lambda: memoryview(memoryview(view)[1:]),
        }
        made = make[kind]()
        for _ in range(2):
            client.sendall(b"x")
            with pytest.raises(BufferError, match="still uses"):
                loop.wait(0)
            assert bytes(made) in b"12345678"
        del made
        received = b""
        while received != b"xx":
            received += b"".join(event.data for event in loop.wait(LONG))


def test_the_buffer_stays_where_it_is_while_the_loop_waits(loop: Loop) -> None:
    """It can be got at, and not be resized."""
    with connect(loop.listen(ADDRESS)) as client:
        with data_of(loop, client, b"hello").view as view:
            buffer = view.obj
        assert isinstance(buffer, bytearray)
        with pytest.raises(BufferError):
            buffer.clear()
        assert loop.wait(0) == []
        with pytest.raises(BufferError):
            buffer.append(1)
        assert data_of(loop, client, bytes(100)).view.tobytes() == bytes(100)


def test_a_view_of_a_loop_that_is_gone(engine: str) -> None:
    """The bytes stay as long as the view."""
    loop = Loop(engine)
    with connect(loop.listen(ADDRESS)) as client:
        event = data_of(loop, client, b"hello")
        view, gone = event.view, weakref.ref(loop)
        loop.close()
        del loop, event
        gc.collect()
        assert gone() is None
        assert view.tobytes() == b"hello"


def test_an_event_does_not_keep_its_loop(engine: str) -> None:
    """The loop has the events of the last wait, whose tokens may lead to the loop."""
    loop = Loop(engine)
    with connect(loop.listen(ADDRESS, token=[loop])) as client:
        data_of(loop, client, b"hello")
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None


def test_a_frame_that_is_longer_than_the_buffer(loop: Loop) -> None:
    sent = os.urandom(600_000)
    with connect(loop.listen(ADDRESS)) as client:
        pulled(loop, omnipoll.ACCEPTED).connection.set_frame_exactly(len(sent))
        join = in_thread(lambda: client.sendall(sent))
        event = pulled(loop, omnipoll.DATA)
        assert event.view.tobytes() == sent
        assert event.data == sent
        join()


def test_datagrams_have_views(loop: Loop) -> None:
    address = loop.listen("udp:127.0.0.1:0")
    with Loop(loop.engine) as asking:
        asking.connect_datagrams(address).send(b"question")
        (question,) = loop.wait(LONG)
        assert question.view.tobytes() == b"question"
        assert loop.wait(0) == []
        assert question.data == b"question"
