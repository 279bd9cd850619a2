"""A daemon thread that is inside Python, called by the library, when the interpreter ends: the process
ends as it does with the standard library, in silence and with success."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import omnipoll

# What the thread runs, and what then waits in Python until the process is gone.
COMMON = """
    import os, socket, sys, threading, time
    import omnipoll
    engine = sys.argv[1]
    inside = threading.Event()
    def stay(*arguments):
        inside.set()
        while True:
            time.sleep(0.0001)
    def in_a_thread(call, *arguments):
        threading.Thread(target=call, args=arguments, daemon=True).start()
        inside.wait()
    reader, writer = os.pipe()
"""

INSIDE = {
    "fileno": """
        class File:
            fileno = stay
        in_a_thread(omnipoll.Poller(engine).add, File(), omnipoll.READ)
    """,
    "selector_fileno": """
        class File:
            fileno = stay
        selector = omnipoll.DefaultSelector()
        in_a_thread(selector.register, File(), omnipoll.EVENT_READ)
    """,
    "token": """
        class Token:
            __del__ = stay
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=Token())
        in_a_thread(poller.remove, reader)
    """,
    "on_finding": """
        poller = omnipoll.Poller(engine, strict=True, on_finding=stay)
        in_a_thread(poller.add, reader, omnipoll.READ | omnipoll.EDGE)
    """,
    "wait": """
        poller = omnipoll.Poller(engine)
        inside.set()
        def wait():
            while True:
                poller.wait(0.0001)
        for _ in range(4):
            in_a_thread(wait)
        time.sleep(0.01)
    """,
}

SERVER = """
    class Handler:
        {name} = stay
        if "{name}" != "on_data":
            def on_data(self, connection, data):
                connection.write(data)
    server = omnipoll.Server(Handler(), "127.0.0.1:0", model="{model}", engine=engine)
    threading.Thread(target=server.run, daemon=True).start()
    host, port = server.addresses[0].rsplit(":", 1)
    client = socket.create_connection((host, int(port)))
    client.sendall(b"hello")
    {then}
    inside.wait()
"""
THEN = {
    "on_open": "",
    "on_data": "",
    "on_end": "client.shutdown(socket.SHUT_WR)",
    "on_stop": "client.recv(5); server.stop()",
}


def ends_well(engine: str, program: str) -> None:
    program = textwrap.dedent(COMMON) + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", program, engine], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("where", INSIDE)
def test_in_a_call_of_the_library(engine: str, where: str) -> None:
    ends_well(engine, INSIDE[where])


@pytest.mark.parametrize("model", ["reactor", "cores", "thread"])
@pytest.mark.parametrize("name", THEN)
def test_in_a_handler(model: str, name: str) -> None:
    engine = omnipoll.Poller().engine
    ends_well(engine, SERVER.format(name=name, model=model, then=THEN[name]))
