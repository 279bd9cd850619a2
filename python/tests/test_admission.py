"""Which clients are admitted by their addresses."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from serving import LONG, connect, receive

import omnipoll

MODELS = ["reactor", "cores", "thread"]


class Echo:
    def on_data(self, connection: Any, data: bytes) -> None:
        connection.write(data)


def is_served(address: str, clients: contextlib.ExitStack) -> bool:
    """One more client: one that is refused may be reset before it knows that it is connected."""
    with contextlib.suppress(ConnectionError):
        client = clients.enter_context(connect(address))
        client.sendall(b"x")
        return client.recv(1) == b"x"
    return False


@pytest.mark.parametrize("model", MODELS)
def test_an_address_has_so_many_connections(model: str) -> None:
    with omnipoll.Server(Echo(), "127.0.0.1:0", model=model, max_address_clients=2) as server:
        address = server.addresses[0]
        with contextlib.ExitStack() as clients:
            assert [is_served(address, clients) for _ in range(3)] == [True, True, False]
        assert server.stats().total.refused_address == 1
        until = time.monotonic() + LONG
        with contextlib.ExitStack() as clients:
            while not is_served(address, clients):
                assert time.monotonic() < until


def test_networks_and_rates() -> None:
    with omnipoll.Server(Echo(), "127.0.0.1:0", deny="127.0.0.0/8, ::1") as server:
        with contextlib.ExitStack() as clients:
            assert not is_served(server.addresses[0], clients)
        assert server.stats().total.refused_filter == 1
    options: dict[str, Any] = {"allow": "127.0.0.1", "max_address_rate": 1, "max_receive_rate": 10000}
    with omnipoll.Server(Echo(), "127.0.0.1:0", **options) as server:
        began = time.monotonic()
        with connect(server.addresses[0]) as client:
            client.sendall(bytes(11000))
            assert receive(client, 11000) == bytes(11000)
            client.sendall(b"x")
            assert receive(client, 1) == b"x"
            assert time.monotonic() - began > 0.099, "a tenth of a second's worth too much"


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    for options in ({"allow": "10.0.0.1/8"}, {"max_address_clients": 0}, {"max_address_rate": 0}):
        with pytest.raises(ValueError):
            omnipoll.Server(Echo(), **options)
        with pytest.raises(ValueError):
            omnipoll.Loop(**options)
