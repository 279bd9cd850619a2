"""The asyncio loop's calls on a program's own sockets."""

from __future__ import annotations

import asyncio
import os
import socket

import aio
import pytest
from conftest import Pair

from omnipoll.aio import EventLoop

MUCH = 1 << 20  # More than a socket's buffers hold.


loop = pytest.fixture(aio.open_loop)


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_a_conversation(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def echo() -> None:
        while data := await loop.sock_recv(theirs, 1000):
            await loop.sock_sendall(theirs, data)

    async def main() -> None:
        task = loop.create_task(echo())
        for number in range(20):
            await loop.sock_sendall(ours, b"%d" % number)
            assert await loop.sock_recv(ours, 1000) == b"%d" % number
        buffer = bytearray(10)
        await loop.sock_sendall(ours, bytearray(b"into"))
        assert await loop.sock_recv_into(ours, buffer) == 4 and buffer[:4] == b"into"
        ours.shutdown(socket.SHUT_WR)
        await task
        theirs.close()
        assert await loop.sock_recv(ours, 1000) == b"" == await loop.sock_recv(ours, 1000)

    aio.run(loop, main())


def test_data_and_an_end_that_come_together(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        receiving = loop.create_task(loop.sock_recv(ours, 1000))
        await asyncio.sleep(0)
        theirs.send(b"data")
        theirs.close()
        assert await receiving == b"data"
        assert await loop.sock_recv(ours, 1000) == b""

    aio.run(loop, main())


def test_what_comes_between_two_calls(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        receiving = loop.create_task(loop.sock_recv(ours, 4))
        await asyncio.sleep(0)
        for _ in range(3):
            theirs.send(b"abcdefgh")
            assert await receiving == b"abcd"
            await asyncio.sleep(0.001)
            receiving = loop.create_task(loop.sock_recv(ours, 100))
            assert await receiving == b"efgh"
            receiving = loop.create_task(loop.sock_recv(ours, 4))
            await asyncio.sleep(0)
        receiving.cancel()

    aio.run(loop, main())


def test_much_is_sent_in_pieces(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair
    data = os.urandom(MUCH)

    async def receive() -> bytes:
        received = b""
        while len(received) < MUCH:
            received += await loop.sock_recv(theirs, 2 * MUCH)
        return received

    async def main() -> None:
        for given in (data, bytearray(data), memoryview(data)):
            receiving = loop.create_task(receive())
            await loop.sock_sendall(ours, given)
            assert await receiving == data

    aio.run(loop, main())


def test_datagrams(loop: EventLoop) -> None:
    async def main() -> None:
        with udp() as one, udp() as other:
            address = other.getsockname()
            for _ in range(3):
                receiving = loop.create_task(loop.sock_recvfrom(other, 100))
                await asyncio.sleep(0)
                assert await loop.sock_sendto(one, b"first", address) == 5
                await loop.sock_sendto(one, b"second", address)
                assert await receiving == (b"first", one.getsockname())
                buffer = bytearray(100)
                assert await loop.sock_recvfrom_into(other, buffer) == (6, one.getsockname())
            one.connect(address)
            for size in (1, 2, 3):
                one.send(bytes(size))
            for size in (1, 2, 3):
                assert len(await loop.sock_recv(other, 100)) == size

    aio.run(loop, main())


def test_accept_and_connect(loop: EventLoop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listener))
            await asyncio.sleep(0)
            await loop.sock_connect(client, listener.getsockname())
            connection, address = await accepting
            with connection:
                assert address == client.getsockname() and connection.gettimeout() == 0
                await loop.sock_sendall(client, b"data")
                assert await loop.sock_recv(connection, 100) == b"data"

    aio.run(loop, main())


def test_a_cancelled_call_takes_nothing(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(ours, 100), 0.001)
        theirs.send(b"data")
        assert await loop.sock_recv(ours, 100) == b"data"

    aio.run(loop, main())


def test_calls_are_served_in_order(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        receiving = [loop.create_task(loop.sock_recv(ours, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        theirs.send(b"abc")
        assert await asyncio.gather(*receiving) == [b"a", b"b", b"c"]

    aio.run(loop, main())


def test_errors(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        theirs.close()
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(ours, b"data")
        with pytest.raises(TypeError):
            await loop.sock_sendall(ours, "text")  # type: ignore[arg-type]
        ours.close()
        with pytest.raises(OSError):
            await loop.sock_recv(ours, 100)

    aio.run(loop, main())


def test_a_number_that_is_used_again_is_another_socket(loop: EventLoop) -> None:
    async def main() -> None:
        for _ in range(5):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                receiving = loop.create_task(loop.sock_recv(ours, 100))
                await asyncio.sleep(0)
                theirs.send(b"data")
                assert await receiving == b"data"

    aio.run(loop, main())


def test_the_end_of_a_socket_that_was_used_is_seen_by_its_peer(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        receiving = loop.create_task(loop.sock_recv(ours, 100))
        await asyncio.sleep(0.001)
        theirs.send(b"data")
        assert await receiving == b"data"
        ours.close()
        assert await loop.sock_recv(theirs, 100) == b""

    aio.run(loop, main())


def test_a_closed_socket_is_removed(loop: EventLoop, pair: Pair) -> None:
    ours = pair[0]

    async def main() -> None:
        loop.add_reader(ours, print)
        loop.add_writer(ours, print)
        number = ours.fileno()
        ours.close()
        assert loop.remove_reader(ours) and loop.remove_writer(ours)
        assert not loop.remove_reader(number)
        with pytest.raises(ValueError):
            loop.remove_reader(ours)
        again, other = socket.socketpair()
        with again, other:
            assert again.fileno() == number
            read = loop.create_future()
            loop.add_reader(again, read.set_result, None)
            other.send(b"data")
            await read
            assert loop.remove_reader(again)

    aio.run(loop, main())


def test_readers_and_transports_take_over(loop: EventLoop, pair: Pair) -> None:
    ours, theirs = pair

    async def main() -> None:
        receiving = loop.create_task(loop.sock_recv(ours, 100))
        await asyncio.sleep(0)
        theirs.send(b"data")
        assert await receiving == b"data"
        read = loop.create_future()
        loop.add_reader(ours, read.set_result, None)
        theirs.send(b"more")
        await read
        loop.remove_reader(ours)
        assert await loop.sock_recv(ours, 100) == b"more"
        receiving = loop.create_task(loop.sock_recv(ours, 100))
        await asyncio.sleep(0)
        theirs.send(b"again")
        await receiving
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.send(b"line\n")
        assert await reader.readline() == b"line\n"
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(ours, 100)
        writer.close()

    aio.run(loop, main())


def test_debug_mode_refuses_sockets_that_block(loop: EventLoop) -> None:
    loop.set_debug(True)
    with socket.socket() as sock, pytest.raises(ValueError, match="must be non-blocking"):
        aio.run(loop, loop.sock_recv(sock, 100))
