"""The options of a server's sockets, as a connection has them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from serving import connect, read_all

import omnipoll


class Say:
    def on_open(self, connection: Any) -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as own:
            options = [
                (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                (socket.SOL_SOCKET, socket.SO_RCVBUF),
                (socket.SOL_SOCKET, socket.SO_SNDBUF),
            ]
            connection.write(repr([own.getsockopt(*option) for option in options]).encode())
        connection.close()


@pytest.mark.parametrize("model", ["reactor", "cores", "thread"])
def test_options_reach_every_client(model: str) -> None:
    options: dict[str, Any] = {"keep_alive": (61, 7, 4), "no_delay": False}
    options.update(receive_buffer=20_000, send_buffer=30_000, free_bind=True, fast_open=5, defer_accept=None)
    server = omnipoll.Server(Say(), "127.0.0.1:0", model=model, pin_workers=True, **options)
    with server, connect(server.addresses[0]) as client:
        assert read_all(client) == b"[0, 61, 7, 4, 40000, 60000]"


def test_a_unix_socket_has_its_mode_and_owner(tmp_path: Path) -> None:
    address, owner = f"unix:{tmp_path}/socket", (os.geteuid(), None)
    with omnipoll.Server(Say(), address, unix_mode=0o620, unix_owner=owner, multicast="239.1.2.3"):
        found = (tmp_path / "socket").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o620, os.geteuid())


def test_an_option_that_makes_no_sense_is_refused() -> None:
    for options in ({"multicast": "10.0.0.1"}, {"keep_alive": (0, 1, 1)}, {"unix_mode": 0o1000}):
        with pytest.raises(ValueError):
            omnipoll.Server(Say(), **options)
