"""Passes TCP connections on to backends: python proxy.py LISTEN BACKEND...

    [--engine ENGINE] [--proxy-in] [--proxy-out 1|2]

Addresses are "127.0.0.1:8080", "example.org:80" or "unix:/path". The backends take turns; one that can't
be reached is left out for a while, and the next is tried. What arrives is passed on as fast as the other side
takes it, in both directions, and each direction ends by itself. SIGTERM and SIGINT let the connections
finish, for ten seconds; a second one ends them.

--proxy-in requires the PROXY protocol's header of every client, of either version; --proxy-out sends one to
every backend.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING

import omnipoll
from omnipoll import Connection, Event, Loop

if TYPE_CHECKING:

    class Client(Connection):
        tried: set[str]

    class Backend(Connection):
        address: str


CONNECT_TIMEOUT = 5  # Seconds, as all that follow.
LEFT_OUT = 5
HEADER_TIMEOUT = 5
DRAIN = 10


class Backends:
    """Takes turns, and remembers which of them could not be reached."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.left_out: dict[str, float] = {}

    def choose(self, tried: set[str]) -> str | None:
        """The next that was not tried; one that is left out only when there is no other."""
        untried = [address for address in self.addresses if address not in tried]
        if not untried:
            return None
        now = time.monotonic()
        chosen = min(untried, key=lambda address: self.left_out.get(address, 0) > now)
        self.addresses.remove(chosen)
        self.addresses.append(chosen)
        return chosen

    def leave_out(self, address: str) -> None:
        self.left_out[address] = time.monotonic() + LEFT_OUT


class Clients:
    """For the connections that come in."""

    def __init__(self, backends: Backends, proxy_out: int | None) -> None:
        self.backends = backends
        self.servers = Servers(self, proxy_out)

    def on_open(self, client: Client) -> None:
        client.tried = set()
        client.pause()  # Until there is a backend.
        self.connect(client)

    def connect(self, client: Client) -> None:
        address = self.backends.choose(client.tried)
        if address is None:
            client.abort()
            return
        client.tried.add(address)
        backend = client.loop.connect(address, self.servers, timeout=CONNECT_TIMEOUT, token=client)
        backend.address = address

    def on_event(self, loop: Loop, event: Event) -> None:
        """SIGTERM or SIGINT: for the second one the loop does not wait."""
        loop.stop(DRAIN if event.token == "first" else 0)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.poller.signal_remove(signum)
            loop.poller.signal_add(signum, token="second")


class Servers:
    """For the connections that go out; the token is the client until they are joined."""

    def __init__(self, clients: Clients, proxy_out: int | None) -> None:
        self.clients = clients
        self.proxy_out = proxy_out

    def on_open(self, backend: Backend) -> None:
        client, backend.token = backend.token, None
        if not client.is_open:
            backend.abort()
            return
        if self.proxy_out:
            backend.write_proxy_header(self.proxy_out, client)
        backend.relay_to(client)
        client.relay_to(backend)
        client.resume()

    def on_close(self, backend: Backend, error: OSError | None) -> None:
        client = backend.token
        if client is None:
            return  # It was open, and the loop ends what it was relayed to.
        self.clients.backends.leave_out(backend.address)
        print(error, file=sys.stderr)
        if client.is_open:
            self.clients.connect(client)


def main() -> None:
    parser = argparse.ArgumentParser(description="Passes TCP connections on to backends.")
    parser.add_argument("listen")
    parser.add_argument("backends", nargs="+", metavar="backend")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--proxy-in", action="store_true")
    parser.add_argument("--proxy-out", type=int, choices=(1, 2))
    options = parser.parse_args()
    handler = Clients(Backends(options.backends), options.proxy_out)
    proxy_header = HEADER_TIMEOUT if options.proxy_in else None
    with omnipoll.Loop(options.engine, handler=handler, proxy_header=proxy_header) as loop:
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.poller.signal_add(signum, token="first")
        print("listening on", loop.listen(options.listen), flush=True)
        loop.run()


if __name__ == "__main__":
    main()
