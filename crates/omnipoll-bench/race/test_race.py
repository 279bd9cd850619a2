"""Tests that each program does what is measured, and that the load would notice if not.

.venv/bin/python -m pytest crates/omnipoll-bench/race
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import build
import echo
import packaged
import protocols
import proxy
import pytest
import report
import scale
from results import OF_BASE, Race, Result
from servers import serving

build.build()
SERVERS, UNBUILT = echo.choose([])
PROXIES, _ = proxy.choose([])
SPEAKERS, _ = build.choose(protocols.commands("redis"))
LIMIT = 30  # seconds for one program


def load(port: int, clients: int, size: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = [build.program("load") or "load", "--port", str(port), "--clients", str(clients)]
    command += ["--bytes", str(size), "--seconds", "0.05", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture
def faulty() -> Iterator[Callable[[Callable[[bytes], bytes]], int]]:
    """Starts an echo server that passes what it got through a function; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(change: Callable[[bytes], bytes]) -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    while data := client.recv(65536):
                        client.sendall(change(data))
                        if not change(data):
                            break
        except OSError:
            return  # the test is over

    def start(change: Callable[[bytes], bytes]) -> int:
        threading.Thread(target=serve, args=(change,), daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_load_passes_a_faithful_server(faulty: Callable[..., int]) -> None:
    done = load(faulty(lambda data: data), 1, 4096)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] > 0


def test_load_connects_again_for_each_message_if_asked() -> None:
    messages: list[int] = []  # of each connection

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the test is over
            messages.append(0)
            with client, contextlib.suppress(ConnectionResetError):
                while data := client.recv(64):
                    messages[-1] += 1
                    client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        done = load(listener.getsockname()[1], 1, 64, "--reconnect", "true")
        listener.shutdown(socket.SHUT_RDWR)
        serving.join(LIMIT)
    assert done.returncode == 0, done.stderr
    assert len(messages) > json.loads(done.stdout)["messages"] > 1
    # One is kept from the warm-up to what is measured.
    assert max(messages) <= 2


@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_load_notices_a_wrong_byte(faulty: Callable[..., int], size: int) -> None:
    done = load(faulty(lambda data: data[:-1] + bytes([data[-1] ^ 1])), 1, size)
    assert done.returncode != 0
    assert "not what was sent" in done.stderr


def test_load_notices_a_byte_too_many(faulty: Callable[..., int]) -> None:
    done = load(faulty(lambda data: data + b"x"), 1, 64)
    assert done.returncode != 0
    assert "not what was sent" in done.stderr


def test_load_notices_a_closed_connection(faulty: Callable[..., int]) -> None:
    done = load(faulty(lambda data: b""), 1, 64)
    assert done.returncode != 0
    assert "closed a connection" in done.stderr


@pytest.mark.parametrize("name", SERVERS)
def test_echo(name: str) -> None:
    with serving(SERVERS[name]) as server:
        for clients, size in ((1, 64), (150, 1), (20, 300_000), (3, 65536)):
            done = load(server.port, clients, size)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROXIES)
def test_proxy(name: str) -> None:
    with proxy.proxying(PROXIES[name]) as server:
        for clients, size in ((1, 64), (150, 1), (20, 300_000), (3, 65536)):
            done = load(server.port, clients, size)
            assert done.returncode == 0, done.stderr
        done = load(server.port, 10, 64, "--reconnect", "true")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_passes_an_end_on_behind_the_bytes(name: str) -> None:
    text = bytes(range(256)) * 40_000  # more than the sockets hold on the way
    with proxy.proxying(PROXIES[name]) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:

            def send() -> None:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            got = b"".join(iter(lambda: client.recv(65536), b""))
            sender.join(LIMIT)
    assert got == text


def test_system_calls_and_memory_of_a_proxy_are_counted() -> None:
    chosen, _ = proxy.choose(["none of the others"])
    (raw,) = proxy.resources(chosen, 1)
    assert raw.figures["bytes"][0] < 10_000
    # A receive and a send, there and back; for a connection accept, connect and close, too.
    assert 4 <= raw.figures["message_calls"][0] < 10 <= raw.figures["connection_calls"][0] < 30


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "installed", lambda name: None)
    chosen, missing = proxy.choose([])
    assert "haproxy, package" not in chosen
    assert missing["proxy: nginx, package"] == "not installed (nginx, libnginx-mod-stream)"


def test_servers_that_were_not_built_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build.program
    monkeypatch.setattr(build, "program", lambda name: None if "libuv" in name else built(name))
    chosen, missing = echo.choose([])
    assert "libuv, C" not in chosen
    assert missing["echo: libuv, C"] == "echo_libuv could not be built"


@pytest.mark.parametrize("name", build.LIBRARIES)
def test_libraries_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("MAKEFLAGS", f" -- LINK_{name}=-lnobody_has_this")
    assert build.LIBRARIES[name] in build.missing()[name]


def exchange(port: int, requests: bytes, answers: bytes) -> None:
    """In two pieces, so that one request comes in half."""
    half = len(requests) * 2 // 3
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        client.sendall(requests[:half])
        got = b""
        while len(got) < len(answers) and (half or got):
            if half:
                client.sendall(requests[half:])
                half = 0
            got += client.recv(65536)
        assert got == answers


@pytest.mark.parametrize("engine", build.engines())
def test_connections_on_many_processes_are_held_and_shared(engine: str) -> None:
    (result,) = scale.race([engine], workers=3, connections=600, seconds=LIMIT)
    assert result.median("held") == 600
    assert 0 < result.median("library") < 10_000
    assert result.median("fewest") <= 540 / 3 <= result.median("most")
    text = report.section_scale(Race({}, {}, [result]))
    assert "600 connections, 3 workers" in text and result.contender in text


def test_a_server_that_does_not_answer_holds_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with scale.clients(silent.getsockname()[1], 1) as orders:
            assert scale.hold_in_all(orders, 5, time.monotonic() + 0.1) == 0


def test_instructions_of_protocols_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        protocols, "commands", lambda protocol: {protocols.BASE: ["serve_raw_epoll", protocol]}
    )
    if not shutil.which("valgrind"):
        pytest.skip("there is no valgrind")
    http, get, pipelined = protocols.count({})
    # What is parsed at once costs less for each, and none of it is nothing.
    assert 100 < pipelined.median("instructions") < get.median("instructions") < 20_000
    assert 100 < http.median("instructions") < 20_000
    assert "1.00 (1.00 to 1.00)" in report.instructions_table(Race({}, {}, [http, get, pipelined]))


# Our examples have tests of their own, and say more.
@pytest.mark.parametrize("name", [name for name in SPEAKERS if "kv" not in Path(SPEAKERS[name][0]).name])
def test_http(name: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"
    command, _ = build.choose(protocols.commands("http"))
    with serving(command[name]) as server:
        exchange(server.port, 100 * b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 100 * answer)


@pytest.mark.parametrize("name", SPEAKERS)
def test_redis(name: str) -> None:
    get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    put = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"
    answers = b"+PONG\r\n$-1\r\n+OK\r\n$4\r\na\r\nb\r\n"
    with serving(SPEAKERS[name]) as server:
        exchange(server.port, b"*1\r\n$4\r\nPING\r\n" + get + put + get, answers)


WATCH_PY = [sys.executable, str(Path(__file__).with_name("watch.py"))]


@pytest.mark.parametrize("command", [["watch_c"], ["watch"], WATCH_PY], ids=["C", "Rust", "Python"])
@pytest.mark.parametrize("idle", [0, 50])
def test_watch(command: list[str], idle: int) -> None:
    """Every contender finds all that is ready, which the program itself asserts."""
    command = [build.program(command[0]) or command[0], *command[1:], "20", "7", str(idle), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    contenders = [line["contender"] for line in lines]
    for engine in build.engines():
        assert any("omnipoll" in name and engine in name for name in contenders)
    for line in lines:
        assert set(line["figures"]) >= {"event_ns", "add_ns", "change_ns", "remove_ns"}
        assert all(min(values) >= 0 for values in line["figures"].values())


@pytest.mark.parametrize("name", ["timers_c", "timers"])
def test_timers(name: str) -> None:
    command = [build.program(name) or name, "100", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert any("omnipoll" in line["contender"] for line in lines)
    for line in lines:
        assert set(line["figures"]) == {"arm_ns", "cancel_ns", "again_ns", "expire_ns"}


def test_ratios_are_taken_turn_by_turn(tmp_path: Path) -> None:
    def result(name: str, clients: int, *values: float) -> Result:
        rest = {"per_second": [1.0], "p50_ns": [1.0], "p99_ns": [1.0]}
        return Result(
            "echo", name, "raw", {"clients": clients, "bytes": 64}, {"cpu_ns": list(values), **rest}
        )

    base, own = result("raw", 1, 1000.0, 2000.0, 4000.0), result("own", 1, 1500.0, 3000.0, 4000.0)
    other = result("raw", 2, 1.0)
    race = Race({"kernel": "any"}, {"libuv": "not installed"}, [other, base, own])
    race.save(tmp_path / "race.json")
    race = Race.load(tmp_path / "race.json")
    assert race.ratio(race.results[2], "cpu_ns") == (1.25, 1.5, 1.5)
    report.write(race, None, tmp_path / "race.md")
    text = (tmp_path / "race.md").read_text()
    assert "- libuv: not installed" in text
    assert "3.00: 1.50 (1.25 to 1.50)" in text


def test_our_ratios_are_set_beside_earlier_ones(tmp_path: Path) -> None:
    def run(commit: str, *, cpu: float, clients: int) -> Race:
        parameters: dict[str, int | str] = {"clients": clients, "bytes": 64}
        return Race(
            {"commit": commit},
            results=[
                Result("echo", "raw", "raw", parameters, {"cpu_ns": [1000.0]}),
                Result("echo", "omnipoll server", "raw", parameters, {"cpu_ns": [cpu]}),
            ],
        )

    now, then = run("b0b", cpu=1100.0, clients=50), run("a0a", cpu=1050.0, clients=50)
    text = report.section_earlier(now, then)
    assert "commit a0a" in text and "| 1.05 to 1.10 |" in text
    # What was not measured then is compared with nothing.
    assert " to 1.10" not in report.section_earlier(now, run("a0a", cpu=1050.0, clients=1))


def trial_of_io_uring(name: str) -> list[str]:
    """The lines that a program prints which tries a feature out."""
    if "io_uring" not in build.engines():
        pytest.skip("there is no io_uring")
    command = [build.program(name) or name, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_zero_copy_sends_are_compared_with_the_others() -> None:
    rows = [line.split("  ") for line in trial_of_io_uring("zero_copy")]
    assert len(rows) == 5 * 3
    assert sum("of 1200 copied" in row[-1] for row in rows) == 5


def test_features_of_a_ring_are_compared_with_a_ring_without_them() -> None:
    lines = trial_of_io_uring("ring_features")
    assert sum("none of them" in line and "1.000" in line for line in lines) == 2
    assert len(lines) == 2 * (1 + 6) + 2


def test_the_goals_of_our_relay_are_set_beside_what_was_measured() -> None:
    def result(name: str, cpu: float) -> Result:
        return Result("proxy", name, proxy.BASE, {"test": proxy.title(50, 64, False)}, {"cpu_ns": [cpu]})

    raw, relay = result(proxy.BASE, 1000.0), result("omnipoll relay, epoll, C", 1020.0)
    assert "| 1.02 of 1.05 |" in report.section_proxy(Race({}, results=[raw, relay]))
    assert "Goals" not in report.section_proxy(Race({}, results=[raw]))


def test_sums_are_taken_turn_by_turn() -> None:
    result = Result("watch", "own", "raw", figures={"add": [1.0, 2.0], "remove": [10.0, 30.0]})
    result.add_up("both", ("add", "remove"))
    assert result.figures["both"] == [11.0, 32.0]


def test_a_ratio_is_to_the_base_nearby() -> None:
    base = Result("echo", "raw", "raw", figures={"cpu": [1.0, 9.0, 9.0, 9.0]})
    own = Result("echo", "own", "raw", figures={"cpu": [4.0, 6.0], f"{OF_BASE}cpu": [2.0, 3.0]})
    assert own.ratio(base, "cpu") == (2.0, 2.0, 2.0)
    assert base.ratio(base, "cpu") == (1.0, 1.0, 1.0)
