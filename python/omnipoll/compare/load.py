"""Clients of an echo server, in a process of their own.

    python -m omnipoll.compare.load ADDRESS MESSAGE-SIZE

Each client has one message in progress: it sends it, waits until it has come back whole, and sends
it again. Obeys lines on standard input, and answers each with a line of JSON:

    connect N      N more clients connect, one after another, and stay
    probe N        N clients connect one after another, and leave after their first answer; fewer
                   when that takes longer than a second
    run SECONDS    those that stay send for so long

Ends with its standard input.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from array import array
from collections import Counter
from typing import Any

import omnipoll
from omnipoll import Poller

PATIENCE = 10  # seconds without an answer, after which the server is given up
PROBING = 1_000_000_000  # nanoseconds, after which a probe is the last
TICK = 100  # nanoseconds: latencies are counted in these

now = time.perf_counter_ns


class Client:
    """One connection."""

    __slots__ = ("part", "receive", "send", "sent_at", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        """Connects."""
        self.sock = socket.create_connection(address, PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.receive, self.send = self.sock.recv, self.sock.sendall
        self.sent_at = 0
        self.part = b""  # what has come back of a message that is not whole yet


class Load:
    """The clients of this process."""

    def __init__(self, address: tuple[str, int], message: bytes) -> None:
        """No clients yet."""
        self.address, self.message = address, message
        self.clients: list[Client] = []

    def first_answer(self) -> tuple[Client, int]:
        """A client that has had its first answer, and the nanoseconds that took from its connect
        to the answer's first byte.
        """
        begin = now()
        client = Client(self.address)
        client.send(self.message)
        answer = client.receive(len(self.message))
        elapsed = now() - begin
        while answer and len(answer) < len(self.message):
            answer += client.receive(len(self.message) - len(answer))
        if answer != self.message:
            raise ConnectionError("the server closed a new connection" if not answer else "the echo is wrong")
        return client, elapsed

    def connect(self, clients: float) -> dict[str, Any]:
        """Clients that stay."""
        for _ in range(int(clients)):
            client, _ = self.first_answer()
            client.sock.settimeout(None)
            self.clients.append(client)
        return {}

    def probe(self, clients: float) -> dict[str, Any]:
        """Clients that leave again."""
        times: list[int] = []
        deadline = now() + PROBING
        while len(times) < clients and not (times and now() > deadline):
            client, elapsed = self.first_answer()
            client.sock.close()
            times.append(elapsed)
        return {"first_answers": times}

    def run(self, seconds: float) -> dict[str, Any]:
        """Lets the clients send and receive; what is in progress at the end is waited for."""
        latencies = array("q")
        cpu = time.process_time_ns()
        begin = now()
        lost = self.exchange(begin + int(seconds * 1e9), latencies)
        elapsed = now() - begin
        return {
            "messages": len(latencies),
            "bytes": len(latencies) * len(self.message),
            "nanoseconds": elapsed,
            "cpu": time.process_time_ns() - cpu,
            "latencies": list(Counter(latency // TICK for latency in latencies).items()),
            "lost": lost,
        }

    def exchange(self, deadline: int, latencies: array[int]) -> list[str]:
        """Adds each message's latency; returns why clients were lost."""
        message, size, dont_wait = self.message, len(self.message), socket.MSG_DONTWAIT
        lost = []
        with Poller("epoll") as poller:
            for client in self.clients:
                poller.add(client.sock, omnipoll.READ, client)
            for client in self.clients:
                client.sent_at = now()
                client.send(message)
            busy = len(self.clients)
            while busy:
                events = poller.wait(PATIENCE)
                if not events:
                    raise TimeoutError(f"{busy} clients have had no answer for {PATIENCE} s")
                for event in events:
                    client = event.token
                    try:
                        data = client.receive(size, dont_wait)
                        if data != message:
                            if not data:
                                raise ConnectionError("the server closed the connection")
                            data = client.part + data
                            client.part = data if len(data) < size else b""
                            if len(data) < size:
                                continue
                            if data != message:
                                raise ConnectionError("the echo is wrong")
                        moment = now()
                        latencies.append(moment - client.sent_at)
                        if moment < deadline:
                            client.sent_at = moment
                            client.send(message)
                        else:
                            busy -= 1
                    except BlockingIOError:
                        pass  # Readiness is a hint.
                    except OSError as error:
                        lost.append(str(error))
                        poller.remove(client.sock)
                        busy -= 1
        return lost


def main(address: str, size: str) -> None:
    """Obeys the lines on standard input."""
    host, _, port = address.rpartition(":")
    load = Load((host, int(port)), b"omnipoll"[: int(size)].ljust(int(size), b"."))
    orders = {"connect": load.connect, "probe": load.probe, "run": load.run}
    for line in sys.stdin:
        word, number = line.split()
        try:
            answer = orders[word](float(number))
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
