#!/usr/bin/env python3
"""Builds and runs the programs in README.md and in the guides, and checks what can be checked of
the rest: links, names, what the changelog lists.

    .venv/bin/python docs/test_docs.py

Needs the Python package in the interpreter that runs it (`make python`), a Rust toolchain, cc,
make and pkg-config. What can't run is skipped; with CI=true that is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent


def engines() -> tuple[str, ...]:
    """Those that are to be had: io_uring may be too old here, or forbidden."""
    asked = "import omnipoll; omnipoll.Poller('io_uring')"
    refused = subprocess.run((sys.executable, "-c", asked), capture_output=True).returncode
    return ("select", "poll", "epoll") + (() if refused else ("io_uring",))


ENGINES = engines()
MODELS = ("reactor", "cores", "thread", "fork", "prefork")
LIMIT = 60  # seconds for each thing that could hang
BUILDING = 600
WARNINGS = "-Wall -Wextra -Wpedantic -Werror"


def text_of(name: str) -> str:
    return (TREE / name).read_text()


def snippets(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.M | re.S)


def run(*command: str | Path, cwd: Path = TREE, seconds: int = LIMIT, **environment: str) -> str:
    """What a command prints. Anything but success is an error, and nothing it started outlives it."""
    with tempfile.TemporaryFile("w+") as output:
        # A file, and not a pipe: what an example has started may hold it open when that has failed.
        process = subprocess.Popen(
            ("timeout", "--signal=ABRT", str(seconds), *command),
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        said = output.read()
    if status != 0:
        raise AssertionError(f"{command} {environment} ended with {status}:\n{said}")
    return said


@contextlib.contextmanager
def talk(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program to talk with. It has to end well by itself."""
    with subprocess.Popen(
        ("timeout", str(LIMIT), *command),
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
    if process.returncode != 0:
        raise AssertionError(f"{command} {environment} ended with {process.returncode}")


class Documents(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@contextlib.contextmanager
def serve(*command: str | Path, **environment: str) -> Iterator[socket.socket]:
    """A client of a server, which is stopped by SIGTERM and has to end well."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), LIMIT) as client:
            yield client
        process.terminate()
        if process.wait(LIMIT) != 0:
            raise AssertionError(f"{command} {environment} ended with {process.returncode}")
    finally:
        process.kill()
        process.communicate()


class Readme(Documents):
    def installed(self, example: str) -> tuple[str, str]:
        """Installs the library and builds a program as the README says: what to set, and to run."""
        if shutil.which("pkg-config") is None:
            self.skipTest("pkg-config is not here")
        lines = next(text for text in snippets("README.md", "sh") if "pkg-config" in text).splitlines()
        install, export, build, run_it = lines
        home = str(self.folder)
        run("make", "library", seconds=BUILDING)
        run("sh", "-ec", install, HOME=home)
        # The same line with every warning an error.
        build = build.replace("cc ", f"cc {WARNINGS} ").replace("silence", example)
        run("sh", "-ec", f"{export}\n{build}", cwd=self.folder, HOME=home)
        return export, run_it

    def test_c_server_with_the_installed_library(self) -> None:
        self.write("echo.c", snippets("README.md", "c")[0])
        export, _ = self.installed("echo")
        for model in MODELS:
            for engine in ENGINES:
                command = ("sh", "-ec", f"{export}\nexec {self.folder}/echo {model}")
                with self.subTest(model=model, engine=engine):
                    with serve(*command, HOME=str(self.folder), OMNIPOLL_ENGINE=engine) as client:
                        client.sendall(b"hello")
                        self.assertEqual(client.recv(100), b"hello")

    def test_c_poller_with_the_installed_library(self) -> None:
        self.write("silence.c", snippets("README.md", "c")[1])
        export, example = self.installed("silence")
        for engine in ENGINES:
            said = run(
                *("sh", "-ec", f"{export}\n{example}"),
                cwd=self.folder,
                HOME=str(self.folder),
                OMNIPOLL_ENGINE=engine,
            )
            self.assertRegex(said, r"\A(nothing for half a second\n)+hello\n\Z")

    def test_python_server(self) -> None:
        path = self.write("shout.py", snippets("README.md", "python")[0])
        for engine in ENGINES:
            with serve(sys.executable, path, OMNIPOLL_ENGINE=engine) as client, client.makefile() as lines:
                host, port = client.getsockname()
                self.assertEqual(lines.readline(), f"I am listening, {host}:{port}\n")
                client.sendall(b"hello\n")
                self.assertEqual(lines.readline(), "HELLO\n")

    def test_python_poller(self) -> None:
        path = self.write("commands.py", snippets("README.md", "python")[1])
        for engine in ENGINES:
            said = run(sys.executable, path, OMNIPOLL_ENGINE=engine).splitlines()
            third = "echo first; sleep 0.4; echo last; exit 3: "
            self.assertEqual(
                [line for line in said if line.startswith(third)],
                [third + "first", third + "last", third + "ended with status 3"],
            )
            self.assertIn("sleep 0.2; echo later: later", said)
            self.assertIn("uname -s: Linux", said)
            self.assertEqual(len(said), 7)

    def rust(self, name: str, program: str) -> Path:
        source = self.write(f"{name}.rs", program)
        binary = self.folder / name
        run("cargo", "build", "--quiet", "-p", "omnipoll", seconds=BUILDING)
        target = TREE / "target" / "debug"
        run(
            *("rustc", "--edition=2021", "-D", "warnings", "-o", binary, source),
            *("-L", target / "deps", "--extern", f"omnipoll={target / 'libomnipoll.rlib'}"),
        )
        return binary

    def test_rust_server(self) -> None:
        binary = self.rust("count", snippets("README.md", "rust")[0])
        for engine in ENGINES:
            with serve(binary, OMNIPOLL_ENGINE=engine) as client, client.makefile() as lines:
                client.sendall(b"hello")
                self.assertEqual(lines.readline(), "5 bytes\n")
                client.sendall(b"again")
                self.assertEqual(lines.readline(), "10 bytes\n")

    def test_rust_poller(self) -> None:
        binary = self.rust("greet", snippets("README.md", "rust")[1])
        for engine in ENGINES:
            with talk(binary, OMNIPOLL_ENGINE=engine) as process:
                assert process.stdin and process.stdout
                found = re.fullmatch(r"connect to 127\.0\.0\.1:(\d+), .*\n", process.stdout.readline())
                assert found
                with socket.create_connection(("127.0.0.1", int(found[1])), LIMIT) as client:
                    host, port = client.getsockname()
                    self.assertEqual(client.makefile().readline(), f"hello, {host}:{port}\n")
                process.stdin.write("\n")

    def test_every_make_target_that_is_named_exists(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
        for name in ("README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/serving.md"):
            named = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text_of(name), re.M)
            self.assertLessEqual({first or second for first, second in named}, targets, name)


class Guides(Documents):
    def build(self, name: str, main: str) -> tuple[Path, list[str]]:
        """The examples of a guide as one program, and their names. `main` has CALLS in it."""
        beginning, *examples = snippets(f"docs/{name}.md", "c")
        names = re.findall(r"^void (\w+)\(void\)$", "".join((beginning, *examples)), re.M)
        self.assertGreaterEqual(len(names), len(examples))
        calls = "".join(f'    puts("{name}");\n    fflush(stdout);\n    {name}();\n' for name in names)
        program = "\n".join([beginning, *examples, main.replace("CALLS", calls)])
        source = self.write(f"{name}.c", program)
        run("make", "library", seconds=BUILDING)
        binary = self.folder / name
        run(
            *("cc", "-std=c11", "-g", *WARNINGS.split(), "-Wno-missing-prototypes", f"-I{TREE / 'include'}"),
            *("-pthread", "-o", binary, source, TREE / "target/release/libomnipoll_capi.a", "-ldl", "-lm"),
        )
        return binary, names

    def test_special_problems(self) -> None:
        binary, names = self.build("guide", "int main(void)\n{\nCALLS    return 0;\n}\n")
        for engine in ENGINES:
            self.assertEqual(run(binary, OMNIPOLL_ENGINE=engine).split(), names)
            # Strict mode has nothing to say but of those that show a mistake.
            said = run(binary, OMNIPOLL_ENGINE=engine, OMNIPOLL_STRICT="1")
            mistaken = re.findall(r"^(\w+)\nomnipoll: (?!.* too long)", said, re.M)
            self.assertEqual(mistaken, ["closed_too_early", "ghost", "child"], said)

    def test_serving(self) -> None:
        main = (
            "int main(int argc, char **argv)\n{\n"
            '    if (getenv("LISTEN_FDS")) {\n        successor();\n        return 0;\n    }\n'
            "    model = (uint32_t)ok(omni_model_by_name(argv[argc - 1]));\nCALLS    return 0;\n}\n"
        )
        binary, names = self.build("serving", main)
        for model in MODELS:
            for engine in ENGINES:
                with self.subTest(model=model, engine=engine):
                    self.assertEqual(run(binary, model, OMNIPOLL_ENGINE=engine).split(), names)


class Words(unittest.TestCase):
    def test_links_lead_somewhere(self) -> None:
        for pattern in ("*.md", "docs/*.md", "c-examples/*.md", "python/*.md"):
            for document in TREE.glob(pattern):
                for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
                    if "://" not in link:
                        self.assertTrue((document.parent / link).exists(), f"{document}: {link}")

    def test_the_changelog_lists_what_the_header_declares(self) -> None:
        header = re.sub(r"/\*.*?\*/", "", text_of("include/omnipoll.h"), flags=re.S)
        declared = set(re.findall(r"\bomni_\w+|(?<=#define )OMNI_\w+", header))
        self.assertEqual(set(re.findall(r"`(omni_\w+|OMNI_\w+)`", text_of("CHANGELOG.md"))), declared)

    def test_every_function_that_is_named_exists(self) -> None:
        header = text_of("include/omnipoll.h")
        guides = ("docs/guide.md", "docs/serving.md", "c-examples/README.md")
        for name in ("README.md", "CONTRIBUTING.md", *guides):
            for word in set(re.findall(r"\b(?:omni|OMNI)_\w*[a-zA-Z]\b", text_of(name))):
                self.assertIn(word, header, name)


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    if skipped and os.environ.get("CI") == "true":
        failed, skipped = failed + skipped, 0
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)
