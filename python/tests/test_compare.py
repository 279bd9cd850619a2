"""`python -m omnipoll compare`: real servers, real clients, and the files it leaves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from omnipoll import compare, info
from omnipoll.compare import load, measure, plan, processes, report
from omnipoll.compare.measure import Result
from omnipoll.compare.plan import Combination, Settings
from omnipoll.compare.stage import Failed, Stage

FIGURES = ("throughput", "cpu", "latency", "first-answer", "memory", "overview")
NO_EXTRA = "sys.modules['rich'] = sys.modules['matplotlib'] = None"


def run(*options: str, code: str = "pass") -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own; `code` runs before it."""
    start = f"import sys; {code}; from omnipoll.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "compare", "--seconds", "0.05", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def results_in(folder: Path) -> Any:
    return json.loads((folder / "compare.json").read_text())


def program(path: Path, code: str) -> str:
    """An executable file in Python."""
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(code))
    path.chmod(0o755)
    return str(path)


ECHO = """
    import os, socket, sys, threading
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    answers = 0
    def serve(client):
        global answers
        while data := client.recv(65536):
            answers += 1
            {on_data}
            client.sendall(data)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def echo(path: Path, on_data: str = "pass") -> str:
    return program(path / "echo", ECHO.replace("{on_data}", on_data))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model on one engine."""
    folder = tmp_path_factory.mktemp("complete")
    done = run("--engines", "epoll", "--clients", "1,7", "--message-size", "1000", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert "Not measured" not in done.stdout
    return folder


def test_every_combination_is_measured(complete: Path) -> None:
    everything = results_in(complete)
    assert everything["left_out"] == []
    measured = {(one["model"], one["engine"], one["clients"]) for one in everything["results"]}
    assert measured == {(model, "epoll", clients) for model in plan.MODELS for clients in (1, 7)}
    assert everything["settings"]["message_size"] == 1000
    assert everything["machine"]["engines"]["epoll"]["available"]


def test_every_engine_is_measured_or_left_out_with_its_reason(tmp_path: Path) -> None:
    done = run("--models", "reactor", "--clients", "1", "--out", str(tmp_path), code=NO_EXTRA)
    assert done.returncode == 0, done.stderr
    everything = results_in(tmp_path)
    assert {one["engine"] for one in everything["results"]} == {
        name for name, engine in everything["machine"]["engines"].items() if engine["available"]
    }
    assert {one["engine"]: one["reason"] for one in everything["left_out"]} == {
        name: engine["reason"]
        for name, engine in everything["machine"]["engines"].items()
        if not engine["available"]
    }


def test_the_numbers_fit_together(complete: Path) -> None:
    for one in results_in(complete)["results"]:
        assert one["messages"] >= one["clients"]
        assert one["bytes"] == one["messages"] * 1000
        assert one["messages_per_second"] == pytest.approx(one["messages"] / one["seconds"])
        assert 0 < one["p50"] <= one["p99"] <= one["seconds"] * 1e6
        assert 0 < one["first_answer_p50"] <= one["first_answer_p99"]
        cpu = one["server_cpu_per_message"] * one["messages"] / 1e6
        assert 0 < cpu <= one["seconds"] * len(os.sched_getaffinity(0))
        assert one["server_busy"] == pytest.approx(cpu / one["seconds"])
        memory = one["memory_with_clients"] - one["memory_empty"]
        assert one["memory_per_client"] == pytest.approx(memory / one["clients"])


def test_processes_and_threads_are_those_of_the_model(complete: Path) -> None:
    for one in results_in(complete)["results"]:
        if one["model"] == "fork":
            assert one["processes"] == 1 + one["clients"]
            assert one["memory_per_client"] > 100_000  # An interpreter's own pages, for each.
        elif one["model"] == "prefork":
            assert one["processes"] == 1 + len(os.sched_getaffinity(0))
        else:
            assert one["processes"] == 1
        if one["model"] == "thread":
            assert one["threads"] >= 1 + one["clients"]


def test_the_table_is_in_markdown(complete: Path) -> None:
    lines = (complete / "compare.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert table[0] == list(report.COLUMNS)
    assert {len(row) for row in table} == {len(report.COLUMNS)}
    assert len(table) == 2 + 5 * 2
    assert any("Python's own cost" in line for line in lines)


def test_the_figures(complete: Path) -> None:
    files = {path.name for path in complete.iterdir()}
    drawn = {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    if find_spec("matplotlib") is None:
        assert not drawn & files
        return
    assert files == drawn | {"compare.md", "compare.json"}
    for name in FIGURES:
        assert ElementTree.parse(complete / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert (complete / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        assert f"({name}.svg)" in (complete / "compare.md").read_text()


def test_without_the_extra_the_table_is_plain_and_the_command_that_installs_it_is_printed(
    tmp_path: Path,
) -> None:
    options = ("--models", "reactor", "--engines", "epoll", "--clients", "1", "--out", str(tmp_path))
    done = run(*options, code=NO_EXTRA)
    assert done.returncode == 0, done.stderr
    assert "[1/1] reactor on epoll, 1 client" in done.stderr
    assert compare.INSTALL in done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["model", "engine", "clients"]
    assert done.stdout.splitlines()[1].split()[:3] == ["reactor", "epoll", "1"]
    assert {path.name for path in tmp_path.iterdir()} == {"compare.md", "compare.json"}


def test_another_program_is_measured(tmp_path: Path) -> None:
    settings = Settings(seconds=0.05, server=echo(tmp_path))
    result = measure.run_one(Combination("thread", "epoll", 3), settings)
    assert result.bytes == result.messages * 64
    assert result.processes == 1
    assert result.threads == 1 + 3


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the server was killed by SIGKILL"),
        ("raise SystemExit('out of order')", "the server ended with status 1: out of order"),
        ("print('hello', flush=True); input(); input()", "the server has printed no address, but 'hello'"),
        ("print(flush=True); input(); input()", "the server has printed no address, but ''"),
    ],
)
def test_a_server_that_does_not_start(tmp_path: Path, server: str, words: str) -> None:
    settings = Settings(server=program(tmp_path / "server", server))
    with pytest.raises(Failed, match=words):
        measure.run_one(Combination("reactor", "epoll", 1), settings)


def test_a_server_that_is_no_program() -> None:
    with pytest.raises(Failed, match=r"the server can't be started: .*No such file"):
        measure.run_one(Combination("reactor", "epoll", 1), Settings(server="/nowhere/at/all"))


def test_a_server_that_dies_under_load_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    # It lives through the clients' coming, and dies in the exchange of the larger number.
    server = echo(tmp_path, "if answers > 1 + 9 + 100 + 2 and threading.active_count() > 5: os._exit(7)")
    options = ("--models", "thread", "--engines", "epoll", "--clients", "1,9", "--server", server)
    done = run(*options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    everything = results_in(tmp_path)
    assert [one["clients"] for one in everything["results"]] == [1]
    (left_out,) = everything["left_out"]
    assert left_out == {
        "model": "thread",
        "engine": "epoll",
        "clients": 9,
        "reason": "the server ended with status 7",
    }
    assert "thread on epoll with 9 clients: the server ended with status 7" in done.stdout


def test_clients_that_are_lost_and_a_wrong_echo_are_reported(tmp_path: Path) -> None:
    combination = Combination("thread", "epoll", 2)
    lossy = echo(tmp_path, "if answers > 200: client.close(); return")
    with pytest.raises(Failed, match="2 of 2 clients were lost: "):
        measure.run_one(combination, Settings(seconds=5, server=lossy))
    wrong = echo(tmp_path, "data = data.upper()")
    with pytest.raises(Failed, match="the echo is wrong"):
        measure.run_one(combination, Settings(server=wrong))


def test_nothing_measured_is_a_failure(tmp_path: Path) -> None:
    done = run(
        "--models", "fork", "--engines", "epoll", "--clients", "1", "--server", "/no", "--out", str(tmp_path)
    )
    assert done.returncode == 1
    assert "fork on epoll with 1 client: the server can't be started" in done.stdout
    assert results_in(tmp_path)["results"] == []


def test_no_program_outlives_its_measurement(tmp_path: Path) -> None:
    stubborn = """
        import os, time
        if os.fork():
            print("up", flush=True)
        time.sleep(60)
    """
    with Stage() as stage:
        server = stage.start("the server", [program(tmp_path / "server", stubborn)])
        assert stage.line_of(server, 20) == "up"
        assert len(processes.members(server.session)) == 2
    deadline = time.monotonic() + 20
    while processes.members(server.session):  # SIGKILL is delivered when they next run.
        assert time.monotonic() < deadline


def test_a_silent_program_is_given_up() -> None:
    with Stage() as stage:
        silent = stage.start("the sleeper", [sys.executable, "-c", "input()"])
        with pytest.raises(Failed, match="the sleeper has not answered for 0 s"):
            stage.line_of(silent, 0.1)


@pytest.fixture
def obstacles() -> Iterator[plan.Obstacles]:
    yield plan.Obstacles()


def test_what_can_not_run_is_named_with_its_reason(obstacles: plan.Obstacles) -> None:
    combination = Combination("fork", "epoll", 1000)
    assert obstacles.to(Combination("reactor", "epoll", 1)) is None
    obstacles.learn(combination, 1e12)
    assert obstacles.to(combination) == "would need about 1000000.0 GB of memory"
    obstacles.tasks = 500
    assert obstacles.to(combination) == "needs 1,100 processes, and there may be 500 (ulimit -u, pids.max)"
    obstacles.descriptors = 1024
    expected = "needs 2,100 descriptors in a process, and may have 1,024 (ulimit -Hn)"
    assert obstacles.to(combination) == expected
    obstacles.engines["epoll"] = info.engine("kqueue")
    assert "not available" in str(obstacles.to(combination))


def test_a_refused_engine_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        info, "engine", lambda name: {"available": False, "reason": "forbidden", "reports": []}
    )
    announced: list[Combination] = []
    results, left_out = compare.measure_all(Settings(models=("cores",), clients=(1, 10)), announced.append)
    assert results == []
    assert announced == Settings(models=("cores",), clients=(1, 10)).combinations()
    lines = report.left_out_in_words(left_out)
    assert lines == [f"cores on {engine} with 1, 10 clients: forbidden" for engine in info.ENGINES]
    assert f"- {lines[0]}\n" in report.markdown(results, left_out, [], [])


def test_a_busy_machine_is_mentioned(complete: Path) -> None:
    results = [Result(**one) for one in results_in(complete)["results"]]
    assert all(result.others_busy >= 0 for result in results)
    quiet = [replace(result, others_busy=0.1) for result in results]
    assert report.disturbance(quiet) == report.disturbance([]) == []
    (warning,) = report.disturbance([replace(result, others_busy=1.5) for result in results])
    assert "took 1.5 of its cores" in warning


def test_percentiles() -> None:
    assert measure.percentile(Counter(range(1, 101)), 50) == 50
    assert measure.percentile(Counter(range(1, 101)), 99) == 99
    assert measure.percentile(Counter([7]), 99) == 7
    assert measure.percentile(Counter({1: 98, 5: 2}), 99) == 5


def test_the_load_counts_what_comes_back_in_pieces() -> None:
    """64 KiB do not come back in one read."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "omnipoll.compare.echo",
            "--model",
            "reactor",
            "--engine",
            "epoll",
            "--address",
            "127.0.0.1:0",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        host, _, port = server.stdout.readline().strip().rpartition(":")
        clients = load.Load((host, int(port)), bytes(range(256)) * 256)
        clients.connect(3)
        said = clients.run(0.05)
        server.terminate()
        for client in clients.clients:
            client.sock.close()
    assert said["lost"] == []
    assert said["bytes"] == said["messages"] * 65536 > 0
    assert sum(count for _, count in said["latencies"]) == said["messages"]
    assert server.returncode == 0


@pytest.mark.parametrize(
    "options", [("--models", "horse"), ("--clients", "0"), ("--message-size", "70000"), ("--seconds", "nan")]
)
def test_wrong_options_are_refused(options: tuple[str, str]) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert f"argument {options[0]}:" in done.stderr


def test_quick_is_a_default_and_no_more() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    compare.add_options(parser)
    assert compare.settings_of(parser.parse_args([])) == Settings()
    quick = compare.settings_of(parser.parse_args(["--quick", "--clients", "5,2"]))
    assert quick == Settings(clients=(2, 5), seconds=0.3)


def test_names_beside_lines_keep_apart() -> None:
    figures = pytest.importorskip("omnipoll.compare.figures")
    placed = figures.apart({"a": 0.5, "b": 0.5, "c": 0.51, "far": 0.9})
    assert placed["far"] == 0.9
    low, middle, high = sorted(placed[name] for name in "abc")
    assert middle - low == pytest.approx(figures.GAP)
    assert high - middle == pytest.approx(figures.GAP)
    assert middle == pytest.approx((0.5 + 0.5 + 0.51) / 3)


def test_the_load_says_when_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        load.Load((host, port), b"x").connect(1)


def test_a_narrow_table_has_parts(complete: Path) -> None:
    results = [Result(**one) for one in results_in(complete)["results"]]
    parts = report.parts(results, 80)
    for part in parts:
        assert part[: report.KEYS] == [0, 1, 2]
        assert max(map(len, report.plain(results, part).splitlines())) < 80
    assert [number for part in parts for number in part[report.KEYS :]] == [*range(3, len(report.COLUMNS))]
    assert len(report.parts(results, 1000)) == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--out", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stderr == f"can't make the folder {tmp_path / 'file'}: File exists\n"


def test_a_closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "omnipoll", "info"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
