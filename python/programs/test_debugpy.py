"""debugpy: a program that is stopped at a line of a coroutine, and goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import HOST, LIMIT, free_port

pytest.importorskip("debugpy")

PROGRAM = """
import asyncio
from PACKAGE import new_event_loop

async def main():
    number = 41
    await asyncio.sleep(0.01)
    number += 1
    await asyncio.sleep(0.01)
    print("the number is", number)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""
LINE = 1 + PROGRAM.splitlines().index("    number += 1")


def connect(port: int, process: subprocess.Popen[str]) -> socket.socket:
    """The only connection: debugpy serves one client, and a second one is none."""
    while True:
        try:
            return socket.create_connection((HOST, port), LIMIT / 2)
        except ConnectionRefusedError:
            assert process.poll() is None
            time.sleep(0.02)


class Client:
    """As little of the Debug Adapter Protocol as this takes."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.stream = connect(port, process).makefile("rwb")
        self.number = 0

    def request(self, command: str, **arguments: Any) -> None:
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.stream.flush()

    def until(self, name: str) -> Any:
        """The next event of this name, or response to this command."""
        while True:
            head = self.stream.readline()
            assert head, f"debugpy has closed the connection before {name}"
            length = int(head.split(b":")[1])
            self.stream.readline()
            message = json.loads(self.stream.read(length))
            assert message.get("success", True), json.dumps(message)
            if name in (message.get("event"), message.get("command")):
                return message.get("body")


def test_a_breakpoint_in_a_coroutine(python: str, tmp_path: Path, loop_name: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("PACKAGE", loop_name.partition(":")[0]))
    port = free_port()
    command = (python, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", f"{HOST}:{port}")
    said = tmp_path / "said"  # A file: debugpy's own process keeps a pipe open.
    with said.open("w") as output:
        process = subprocess.Popen(
            (*command, "--wait-for-client", str(path)), stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        client = Client(port, process)
        client.request("initialize", adapterID="test", clientID="test")
        client.until("initialize")
        client.request("attach", justMyCode=True)
        client.until("initialized")
        client.request("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": LINE}])
        client.request("configurationDone")
        thread = client.until("stopped")["threadId"]
        client.request("stackTrace", threadId=thread)
        frame = client.until("stackTrace")["stackFrames"][0]
        assert (frame["name"], frame["line"]) == ("main", LINE)
        client.request("evaluate", expression="number", frameId=frame["id"])
        assert client.until("evaluate")["result"] == "41"
        client.request("continue", threadId=thread)
        client.until("terminated")
        client.request("disconnect")
        assert process.wait(LIMIT / 2) == 0
        assert "the number is 42" in said.read_text()
    except Exception:
        print(said.read_text())
        raise
    finally:
        process.kill()
        process.wait()
