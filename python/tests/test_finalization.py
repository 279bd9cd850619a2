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
    import gc, os, queue, socket, sys, threading, time, weakref
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
    def having(**methods):
        return type("Having", (), {**methods, "__slots__": ()})()
    def no_text():
        # Refused; the words of the error ask its class for its name.
        class Meta(type):
            def __getattribute__(cls, name):
                stay()
        return object.__new__(Meta("Odd", (), {}))
    class Echo:
        def on_data(self, connection, data):
            connection.write(data)
    reader, writer = os.pipe()
"""

INSIDE = {
    "fileno": """
        in_a_thread(omnipoll.Poller(engine).add, having(fileno=stay), omnipoll.READ)
    """,
    "selector_fileno": """
        selector = omnipoll.DefaultSelector()
        in_a_thread(selector.register, having(fileno=stay), omnipoll.EVENT_READ)
    """,
    "interest": """
        in_a_thread(omnipoll.Poller(engine).add, reader, having(__index__=stay))
    """,
    "timeout": """
        in_a_thread(omnipoll.Poller(engine).wait, having(__float__=stay))
    """,
    "delay": """
        in_a_thread(omnipoll.Poller(engine).timer_add, having(__float__=stay))
    """,
    "time": """
        in_a_thread(omnipoll.Poller(engine).timer_add_at, having(timestamp=stay))
    """,
    "timer": """
        in_a_thread(omnipoll.Poller(engine).timer_cancel, having(__index__=stay))
    """,
    "process": """
        in_a_thread(omnipoll.Poller(engine).child_add, having(pid=property(stay)))
    """,
    "posted_value": """
        in_a_thread(omnipoll.Poller(engine).post, "token", having(__index__=stay))
    """,
    "removed_token": """
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=having(__del__=stay))
        in_a_thread(poller.remove, reader)
    """,
    "closed_token": """
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=having(__del__=stay))
        in_a_thread(poller.close)
    """,
    "closed_timer": """
        poller = omnipoll.Poller(engine)
        poller.timer_add(60, token=having(__del__=stay))
        in_a_thread(poller.close)
    """,
    "dropped_poller": """
        pollers = [omnipoll.Poller(engine)]
        pollers[0].add(reader, omnipoll.READ, token=having(__del__=stay))
        in_a_thread(pollers.clear)
    """,
    # A token that the collector does not know is dropped by the selector or poller that it clears.
    "collected_selector": """
        selector = omnipoll.DefaultSelector()
        selector.register(reader, omnipoll.EVENT_READ, having(__del__=stay))
        del selector
        in_a_thread(gc.collect)
    """,
    "collected_poller": """
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=[poller])
        poller.add(writer, omnipoll.WRITE, token=having(__del__=stay))
        del poller
        in_a_thread(gc.collect)
    """,
    "weak_reference_to_a_poller": """
        pollers = [omnipoll.Poller(engine)]
        reference = weakref.ref(pollers[0], stay)
        in_a_thread(pollers.clear)
    """,
    "dropped_event": """
        poller = omnipoll.Poller(engine)
        poller.post(having(__del__=stay))
        in_a_thread(poller.wait().clear)
    """,
    "repr_of_an_event": """
        poller = omnipoll.Poller(engine)
        poller.post(having(__repr__=stay))
        in_a_thread(repr, poller.wait()[0])
    """,
    "repr_of_a_registration": """
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=having(__repr__=stay))
        in_a_thread(repr, poller.dump()[0])
    """,
    "dropped_registration": """
        poller = omnipoll.Poller(engine)
        poller.add(reader, omnipoll.READ, token=having(__del__=stay))
        dumped = poller.dump()
        poller.remove(reader)
        in_a_thread(dumped.clear)
    """,
    "on_finding": """
        poller = omnipoll.Poller(engine, strict=True, on_finding=stay)
        in_a_thread(poller.add, reader, omnipoll.READ | omnipoll.EDGE)
    """,
    "repr_of_a_finding": """
        findings = []
        poller = omnipoll.Poller(engine, strict=True, on_finding=findings.append)
        token = having(__repr__=lambda token: "token")
        poller.add(reader, omnipoll.READ | omnipoll.EDGE, token=token)
        type(token).__repr__ = stay
        in_a_thread(repr, findings[0])
    """,
    "dropped_finding": """
        findings = []
        poller = omnipoll.Poller(engine, strict=True, on_finding=findings.append)
        poller.add(reader, omnipoll.READ | omnipoll.EDGE, token=having(__del__=stay))
        poller.remove(reader)
        in_a_thread(findings.clear)
    """,
    "handler_that_is_looked_at": """
        in_a_thread(omnipoll.Server, having(on_data=property(stay)))
    """,
    "option_of_a_server": """
        in_a_thread(lambda: omnipoll.Server(Echo(), backlog=having(__index__=stay)))
    """,
    "address_of_a_server": """
        in_a_thread(omnipoll.Server(Echo()).listen, no_text())
    """,
    "drain": """
        in_a_thread(omnipoll.Server(Echo()).stop, having(__float__=stay))
    """,
    "dropped_server": """
        servers = [omnipoll.Server(having(on_data=lambda *arguments: None, __del__=stay))]
        in_a_thread(servers.clear)
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
    connections = queue.Queue()
    class Handler(Echo):
        def on_open(self, connection):
            connections.put(connection)
    {handler}
    server = omnipoll.Server(Handler(), "{address}", model="{model}", engine=engine)
    threading.Thread(target=server.run, daemon=True).start()
    host, port = server.addresses[0].split(":")[-2:]
    def connect(kind):
        client = socket.socket(socket.AF_INET, kind)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(b"hello")
        return client
    {then}
    inside.wait()
"""
STREAM = "client = connect(socket.SOCK_STREAM)"
# What the client and the program do for the handler to be called.
THEN = {
    "on_open": "",
    "on_data": "",
    "on_end": "client.shutdown(socket.SHUT_WR)",
    "on_post": "connections.get().post(1)",
    "on_stop": "client.recv(5); server.stop()",
    "on_close": "client.close()",
}


def ends_well(engine: str, program: str) -> None:
    program = textwrap.dedent(COMMON) + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", program, engine], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def serves_and_ends_well(model: str, handler: str, then: str, address: str = "127.0.0.1:0") -> None:
    engine = omnipoll.Poller().engine
    ends_well(engine, SERVER.format(model=model, handler=handler, then=then, address=address))


@pytest.mark.parametrize("where", INSIDE)
def test_in_a_call_of_the_library(engine: str, where: str) -> None:
    ends_well(engine, INSIDE[where])


@pytest.mark.parametrize("model", ["reactor", "cores", "thread"])
@pytest.mark.parametrize("name", THEN)
def test_in_a_handler(model: str, name: str) -> None:
    serves_and_ends_well(model, f"    {name} = stay", f"{STREAM}; {THEN[name]}")


@pytest.mark.parametrize("model", ["reactor", "cores", "thread"])
def test_in_a_handler_of_room(model: str) -> None:
    """Of more than the system holds for both, the client takes all but what is below the mark."""
    flood = "    on_drain = stay; on_data = lambda self, it, data: it.write(bytes(15_000_000))"
    read = "left = 15_000_000 - 16_384\n    while left: left -= len(client.recv(min(left, 65536)))"
    serves_and_ends_well(model, flood, f"{STREAM}\n    {read}")


@pytest.mark.parametrize("model", ["reactor", "cores"])
def test_in_a_handler_of_datagrams(model: str) -> None:
    serves_and_ends_well(
        model, "    on_datagram = stay", "connect(socket.SOCK_DGRAM)", address="udp:127.0.0.1:0"
    )


def test_with_a_datagram_that_the_program_has_kept() -> None:
    handler = "    on_datagram = lambda self, datagram, data: connections.put(datagram)"
    use = "connect(socket.SOCK_DGRAM); in_a_thread(connections.get().send_to, no_text(), b'')"
    serves_and_ends_well("reactor", handler, use, address="udp:127.0.0.1:0")


@pytest.mark.parametrize("model", ["reactor", "cores", "thread"])
def test_while_handlers_work(model: str) -> None:
    """They come and go, for clients that ask again and again."""
    ask = """
    def ask():
        client = connect(socket.SOCK_STREAM)
        while client.recv(100):
            inside.set()
            client.sendall(b"hello")
    for _ in range(4):
        threading.Thread(target=ask, daemon=True).start()
    """
    serves_and_ends_well(model, "", ask)


@pytest.mark.parametrize("attribute", ["__del__", "weak reference"])
def test_at_the_end_of_a_connection_that_the_program_has_kept(attribute: str) -> None:
    keep = {
        "__del__": "kept[0].token = having(__del__=stay)",
        "weak reference": "reference = weakref.ref(kept[0], stay)",
    }
    handler = "    on_close = lambda self, connection, error: connections.put(connection)"
    close = f"{STREAM}; client.close(); connections.get(); kept = [connections.get()]; {keep[attribute]}"
    serves_and_ends_well("reactor", handler, f"{close}; server.stop(); in_a_thread(kept.clear)")
