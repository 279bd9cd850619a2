"""What connections cost that send nothing, in memory and in the time of a message beside them, and what
those have left that have ended."""

from __future__ import annotations

import os
import re
import resource
import socket
import time
from pathlib import Path

from asyncio_rows.contender import Contender, Unable
from asyncio_rows.load import HOST, LIMIT
from asyncio_rows.rows import KIB, Row

ECHO = Row("idle connections", "protocol", 5000, "echo", KIB)
CONNECT = Row("ended connections", "protocol", 1000, "connect", KIB)
# So many parts of the connections have ended before the first look: what is kept for the next ones is there.
BEFORE = 5


def resident(pid: int) -> int:
    """KiB of memory that the process has."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1])


def raise_limit(descriptors: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, hard), hard))


def idle(loop: str, connections: int, operations: int) -> dict[str, float]:
    """KiB for a connection, and microseconds of CPU for an echo without and with them."""
    raise_limit(connections + 100)
    with Contender(loop, ECHO) as contender:
        contender.run(100)
        alone = contender.cpu_ns(operations)
        before = resident(contender.pid)
        port = contender.port
        clients = []
        try:
            for _ in range(connections):
                clients.append(socket.create_connection((HOST, port), LIMIT))
            contender.run(100)  # It has accepted what was before.
            grown = resident(contender.pid) - before
            beside = contender.cpu_ns(operations)
        except OSError as error:
            raise Unable(f"after {len(clients)} connections: {error}") from error
        finally:
            for client in clients:
                client.close()
    return {"kib": grown / connections, "alone_us": alone / 1000, "beside_us": beside / 1000}


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def ended(loop: str, connections: int) -> dict[str, float]:
    """KiB and descriptors that a process has more once so many connections were opened, used and closed."""
    with Contender(loop, CONNECT) as contender:
        without = descriptors(contender.pid)
        contender.run(connections // BEFORE)
        before = resident(contender.pid)
        contender.run(connections)
        deadline = time.monotonic() + LIMIT
        while descriptors(contender.pid) > without and time.monotonic() < deadline:
            time.sleep(0.01)  # It has not read the last ones' end yet.
        grown = resident(contender.pid) - before
        return {"kib": grown, "descriptors": descriptors(contender.pid) - without}
