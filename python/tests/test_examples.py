"""python/examples: kv.py under redis-cli and redis-benchmark, and the small ones."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ENGINES
from serving import LONG, MODELS, SHARING, connect, read_all, receive, talk

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MODELS_AND_ENGINES = [(model, engine) for model in MODELS for engine in ENGINES]

needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-cli") and shutil.which("redis-benchmark")),
    reason="redis-cli and redis-benchmark are not here (Debian: redis-tools)",
)


@contextlib.contextmanager
def example(name: str, *arguments: str) -> Iterator[str]:
    """Runs an example, and yields the address it prints; SIGTERM must end it cleanly."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            words = process.stdout.readline().decode().split()
            assert words, process.stderr.read().decode()
            yield words[-1]
            process.send_signal(signal.SIGTERM)
            said, complained = process.communicate(timeout=LONG)
            assert (process.returncode, said, complained) == (0, b"", b"")
        finally:
            if process.poll() is None:
                process.kill()


def kv(model: str, engine: str) -> contextlib.AbstractContextManager[str]:
    return example(
        "kv.py", "--address", "127.0.0.1:0", "--model", model, "--engine", engine, "--workers", "2"
    )


def redis(tool: str, address: str, *arguments: str, commands: str = "") -> str:
    host, port = address.split(":")
    command = [tool, "-h", host, "-p", port, *arguments]
    done = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=6 * LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_redis
@pytest.mark.parametrize(("model", "engine"), MODELS_AND_ENGINES)
def test_redis_cli(model: str, engine: str) -> None:
    """In one connection: under fork another would find an empty store."""
    conversation = [
        ("PING", "PONG"),
        ("PING hello", '"hello"'),
        ("ECHO 'two words'", '"two words"'),
        ("SET greeting hello", "OK"),
        ("GET greeting", '"hello"'),
        ("GET nothing", "(nil)"),
        ("EXISTS greeting nothing greeting", "(integer) 2"),
        ("DEL greeting nothing", "(integer) 1"),
        ("INCR count", "(integer) 1"),
        ("incr count", "(integer) 2"),
        ("SET word x", "OK"),
        ("INCR word", "(error) ERR value is not an integer or out of range"),
        ("SET large 9223372036854775807", "OK"),
        ("INCR large", "(error) ERR value is not an integer or out of range"),
        ("GET", "(error) ERR wrong number of arguments for 'get' command"),
        ("FLY away", "(error) ERR unknown command 'FLY'"),
        ("HELLO 4", "(error) NOPROTO unsupported protocol version"),
        ("CONFIG GET save", '1) "save"'),
    ]
    with kv(model, engine) as address:
        said = redis("redis-cli", address, "--no-raw", commands="\n".join(line for line, _ in conversation))
    lines = [line for line in said.splitlines() if line]
    assert lines[: len(conversation)] == [answer for _, answer in conversation]


@needs_redis
def test_redis_cli_with_the_newer_protocol(store: str) -> None:
    said = redis("redis-cli", store, "-3", "--no-raw", commands="GET nothing\nCONFIG GET save")
    assert said.split("\n")[:2] == ["(nil)", '1# "save" => ""']


@needs_redis
@pytest.mark.parametrize(("model", "engine"), MODELS_AND_ENGINES)
def test_redis_benchmark(model: str, engine: str) -> None:
    """Pipelined; every request has its answer, or it would not end."""
    with kv(model, engine) as address:
        said = redis(
            "redis-benchmark",
            address,
            *("--csv", "-t", "ping,set,get,incr", "-c", "20", "-n", "4000", "-P", "8", "-r", "100"),
        )
    tests = [line.split(",")[0].strip('"') for line in said.splitlines() if line.startswith('"')]
    assert [name for name in tests if name != "test"] == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with kv("reactor", "auto") as address:
        yield address


def test_a_request_in_any_pieces(store: str) -> None:
    requests = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\nline\r\nend\r\n*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"
    requests += b"PING\r\n\r\nping  you\n"
    answers = b"+OK\r\n$9\r\nline\r\nend\r\n+PONG\r\n$3\r\nyou\r\n"
    assert talk(store, requests) == answers
    assert talk(store, *(bytes([byte]) for byte in requests)) == answers
    assert talk(store, *(requests[begin : begin + 7] for begin in range(0, len(requests), 7))) == answers


def test_hello_chooses_the_protocol(store: str) -> None:
    asked = b"GET nothing\r\nCONFIG GET save\r\n"
    hello = b"%b\r\n$6\r\nserver\r\n$2\r\nkv\r\n$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:N\r\n"
    hello += b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
    setting = b"$4\r\nsave\r\n$0\r\n\r\n"
    older = hello % (b"*10", 2) + b"$-1\r\n*2\r\n" + setting
    newer = hello % (b"%5", 3) + b"_\r\n%1\r\n" + setting
    for requests, answers in (
        (b"HELLO", older),
        (b"HELLO 2", older),
        (b"hello 3", newer),
        (b"HELLO 3\r\nHELLO", hello % (b"%5", 3) + newer),
        (b"HELLO 3\r\nHELLO 4", hello % (b"%5", 3) + b"-NOPROTO unsupported protocol version\r\n_\r\n"),
        (b"HELLO 3\r\nHELLO 2", hello % (b"%5", 3) + older),
    ):
        said = re.sub(rb"(id\r\n:)[1-9]\d*\r", rb"\1N\r", talk(store, requests + b"\r\n" + asked))
        assert said[: len(answers)] == answers


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"*x\r\n", b"-ERR Protocol error: invalid length\r\n"),
        (b"*-1\r\n", b"-ERR Protocol error: invalid length\r\n"),
        (b"*1000000\r\n", b"-ERR Protocol error: invalid length\r\n"),
        (b"*1\r\n$99999999999\r\n", b"-ERR Protocol error: invalid length\r\n"),
        (b"*1\r\n:4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"PING\r\n" + b"x" * 100_000, b"+PONG\r\n-ERR Protocol error: too big inline request\r\n"),
        (b"PING\r\nQUIT\r\nPING\r\n", b"+PONG\r\n+OK\r\n"),
        (b"*2\r\n$4\r\nECHO\r\n$10\r\nunfinished", b""),
    ],
)
def test_what_ends_a_conversation(store: str, request_: bytes, answer: bytes) -> None:
    assert talk(store, request_) == answer


def test_a_client_that_asks_for_much_and_reads_late(store: str) -> None:
    """100 MB of answers are asked for before one is read; they are made as they are read."""
    value = bytes(1_000_000)
    with connect(store) as client:
        client.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$1000000\r\n" + value + b"\r\n")
        assert receive(client, 5) == b"+OK\r\n"
        client.sendall(b"GET big\r\n" * 100 + b"PING\r\n")
        client.shutdown(socket.SHUT_WR)
        for _ in range(100):
            assert receive(client, 1_000_012) == b"$1000000\r\n" + value + b"\r\n"
        assert receive(client, 7) == b"+PONG\r\n"


def test_echo() -> None:
    with example("echo.py", "127.0.0.1:0", "cores") as address:
        assert talk(address, b"hello") == b"hello"


@pytest.mark.parametrize("model", SHARING)
def test_chat(model: str) -> None:
    with example("chat.py", "127.0.0.1:0", model) as address, connect(address) as one:
        name = "{}:{}".format(*one.getsockname())
        with one.makefile() as received:
            assert received.readline() == f"{name} has come\n"
            with connect(address) as other:
                name = "{}:{}".format(*other.getsockname())
                assert received.readline() == f"{name} has come\n"
                other.sendall(b"hel")
                other.sendall(b"lo\nall\n")
                assert received.readline() == f"{name}: hello\n"
                assert received.readline() == f"{name}: all\n"
            assert received.readline() == f"{name} has left\n"


def test_a_chat_has_rooms() -> None:
    with example("chat.py", "127.0.0.1:0") as address, connect(address) as one, one.makefile() as received:
        ours = "{}:{}".format(*one.getsockname())
        assert received.readline() == f"{ours} has come\n"
        one.sendall(b"/join kitchen\n")
        assert received.readline() == f"{ours} has come\n"
        with connect(address) as other, other.makefile() as heard:
            theirs = "{}:{}".format(*other.getsockname())
            assert heard.readline() == f"{theirs} has come\n"
            other.sendall(b"for the lobby\n")
            assert heard.readline() == f"{theirs}: for the lobby\n"
            other.sendall(b"/join kitchen\nhere I am\n")
            assert received.readline() == f"{theirs} has come\n"
            assert received.readline() == f"{theirs}: here I am\n"


def test_a_chat_ends_silent_clients() -> None:
    with example("chat.py", "127.0.0.1:0", "reactor", "0.05") as address, connect(address) as client:
        assert read_all(client).splitlines()[1:] == [b"are you there?", b"goodbye"]


@pytest.mark.parametrize("host", ["asyncio", "tk"])
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine not in ("select", "poll")])
def test_a_loop_in_another_one(host: str, engine: str) -> None:
    if host == "tk":
        pytest.importorskip("tkinter")
    with example("embedded.py", host, engine) as address:
        assert talk(address, b"hello", b" and goodbye") == b"hello and goodbye"
        with connect(address) as client:
            client.sendall(b"x")
            assert receive(client, 1) == b"x"
