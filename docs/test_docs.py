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
    """The available ones: io_uring may be missing here, or forbidden."""
    program = "import omnipoll; omnipoll.Poller('io_uring')"
    refused = subprocess.run((sys.executable, "-c", program), capture_output=True).returncode
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
    """What a command prints. Anything but success is an error; what it has started is killed."""
    with tempfile.TemporaryFile("w+") as output:
        # A file, not a pipe: a process that a failed example has left behind may keep a pipe open.
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


class Documents(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def rust(self, name: str, program: str) -> Path:
        """Compiles a program against the crate."""
        source = self.write(f"{name}.rs", program)
        binary = self.folder / name
        run("cargo", "build", "--quiet", "-p", "omnipoll", seconds=BUILDING)
        target = TREE / "target" / "debug"
        run(
            *("rustc", "--edition=2021", "-D", "warnings", "-o", binary, source),
            *("-L", target / "deps", "--extern", f"omnipoll={target / 'libomnipoll.rlib'}"),
        )
        return binary


@contextlib.contextmanager
def serve(*command: str | Path, **environment: str) -> Iterator[socket.socket]:
    """A client of a server that is stopped by SIGTERM and must end with success."""
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
    def check(self, *command: str | Path, answer: bytes, **environment: str) -> None:
        with serve(*command, **environment) as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv(100), answer)

    def test_c(self) -> None:
        """Installs the library and builds the program as the README says."""
        if shutil.which("pkg-config") is None:
            self.skipTest("pkg-config is not here")
        self.write("echo.c", snippets("README.md", "c")[0])
        lines = next(text for text in snippets("README.md", "sh") if "pkg-config" in text).splitlines()
        install, export, build, run_it = lines
        home = str(self.folder)
        run("make", "library", seconds=BUILDING)
        run("sh", "-ec", install, HOME=home)
        # The same line with every warning an error.
        run("sh", "-ec", f"{export}\n{build.replace('cc ', f'cc {WARNINGS} ')}", cwd=self.folder, HOME=home)
        program = run_it.split()[0].replace(".", str(self.folder), 1)
        for model in MODELS:
            for engine in ENGINES:
                with self.subTest(model=model, engine=engine):
                    command = ("sh", "-ec", f"{export}\nexec {program} {model}")
                    self.check(*command, answer=b"hello", HOME=home, OMNIPOLL_ENGINE=engine)

    def test_python(self) -> None:
        path = self.write("shout.py", snippets("README.md", "python")[1])
        for engine in ENGINES:
            self.check(sys.executable, path, answer=b"HELLO", OMNIPOLL_ENGINE=engine)

    def test_asyncio(self) -> None:
        """The client of the README, with a server that it can talk to."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(LIMIT)
            port = listener.getsockname()[1]
            program = snippets("README.md", "python")[0].replace("8080", str(port))
            for engine in ENGINES:
                process = subprocess.Popen(
                    (sys.executable, "-W", "error", self.write("client.py", program)),
                    env={**os.environ, "OMNIPOLL_ENGINE": engine},
                    stdout=subprocess.PIPE,
                    text=True,
                )
                with listener.accept()[0] as client, client.makefile("rwb") as stream:
                    stream.write(stream.readline().upper())
                self.assertEqual(process.communicate(timeout=LIMIT)[0], "b'HELLO\\n'\n")
                self.assertEqual(process.returncode, 0)

    def test_rust(self) -> None:
        binary = self.rust("echo", snippets("README.md", "rust")[0])
        for engine in ENGINES:
            self.check(binary, answer=b"hello", OMNIPOLL_ENGINE=engine)

    def test_every_make_target_that_is_named_exists(self) -> None:
        made = text_of("Makefile") + text_of("crates/omnipoll-capi/package/install.mk")
        targets = set(re.findall(r"^([a-z-]+):", made, re.M))
        guides = [f"docs/{name}.md" for name in ("asyncio", "guide", "install", "serving")]
        for name in ("README.md", "CONTRIBUTING.md", *guides):
            named = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text_of(name), re.M)
            self.assertLessEqual({first or second for first, second in named}, targets, name)


class Guides(Documents):
    def c(self, name: str, main: str) -> tuple[Path, list[str]]:
        """The C examples of a guide as one program, and their names. `main` has CALLS in it."""
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

    def check_python(self, name: str) -> None:
        """Each example in Python is a program."""
        examples = snippets(f"docs/{name}.md", "python")
        self.assertGreaterEqual(len(examples), 3)
        for number, example in enumerate(examples):
            path = self.write(f"{name}{number}.py", example)
            for engine in ENGINES:
                with self.subTest(number=number, engine=engine):
                    run(sys.executable, "-W", "error", path, OMNIPOLL_ENGINE=engine)

    def check_rust(self, name: str) -> None:
        """Each example in Rust ends with the function to call; together they are one program."""
        examples = snippets(f"docs/{name}.md", "rust")
        self.assertGreaterEqual(len(examples), 3)
        modules, calls = [], []
        for number, example in enumerate(examples):
            function = re.findall(r"^fn (\w+)\(\) -> ", example, re.M)[-1]
            # A module exports its function, which the document need not say.
            example = example.replace(f"\nfn {function}(", f"\npub fn {function}(")
            modules.append(f"mod m{number} {{\n{example}pub use {function} as run;\n}}\n")
            calls.append(f'    println!("{function}");\n    m{number}::run()?;\n')
        program = "".join(modules) + f"fn main() -> std::io::Result<()> {{\n{''.join(calls)}    Ok(())\n}}\n"
        binary = self.rust(name, program)
        for engine in ENGINES:
            with self.subTest(engine=engine):
                run(binary, OMNIPOLL_ENGINE=engine)

    def test_pollers_in_python(self) -> None:
        self.check_python("guide")

    def test_serving_in_python(self) -> None:
        self.check_python("serving")

    def test_asyncio_in_python(self) -> None:
        self.check_python("asyncio")

    def test_pollers_in_rust(self) -> None:
        self.check_rust("guide")

    def test_serving_in_rust(self) -> None:
        self.check_rust("serving")

    def test_pollers_in_c(self) -> None:
        binary, names = self.c("guide", "int main(void)\n{\nCALLS    return 0;\n}\n")
        for engine in ENGINES:
            self.assertEqual(run(binary, OMNIPOLL_ENGINE=engine).split(), names)
            # Strict mode reports the examples that show a mistake, and no other.
            said = run(binary, OMNIPOLL_ENGINE=engine, OMNIPOLL_STRICT="1")
            mistaken = re.findall(r"^(\w+)\nomnipoll: (?!.* too long)", said, re.M)
            self.assertEqual(mistaken, ["closed_too_early", "stale_entry", "child"], said)

    def test_serving_in_c(self) -> None:
        main = (
            "int main(int argc, char **argv)\n{\n"
            '    if (getenv("LISTEN_FDS")) {\n        successor();\n        return 0;\n    }\n'
            "    model = (uint32_t)ok(omni_model_by_name(argv[argc - 1]));\nCALLS    return 0;\n}\n"
        )
        binary, names = self.c("serving", main)
        for model in MODELS:
            for engine in ENGINES:
                with self.subTest(model=model, engine=engine):
                    self.assertEqual(run(binary, model, OMNIPOLL_ENGINE=engine).split(), names)


def anchors(document: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Words(unittest.TestCase):
    def test_links_lead_to_files_and_headings(self) -> None:
        for pattern in ("*.md", "docs/*.md", "c-examples/*.md", "python/*.md"):
            for document in TREE.glob(pattern):
                for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
                    name, _, heading = link.partition("#")
                    if "://" not in link:
                        target = document.parent / name if name else document
                        self.assertTrue(target.exists(), f"{document}: {link}")
                        if heading:
                            self.assertIn(heading, anchors(target), f"{document}: {link}")

    def test_the_code_that_the_architecture_names_exists(self) -> None:
        source = TREE / "crates/omnipoll"
        for name in re.findall(r"[a-z_/]+\.rs\b", text_of("ARCHITECTURE.md")):
            found = list(source.glob(name)) or list(source.glob(f"src/**/{name}"))
            self.assertTrue(found, name)

    def test_the_changelog_lists_what_the_header_declares(self) -> None:
        header = re.sub(r"/\*.*?\*/", "", text_of("include/omnipoll.h"), flags=re.S)
        declared = set(re.findall(r"\bomni_\w+|(?<=#define )OMNI_\w+", header))
        self.assertEqual(set(re.findall(r"`(omni_\w+|OMNI_\w+)`", text_of("CHANGELOG.md"))), declared)

    def test_every_function_that_is_named_exists(self) -> None:
        header = text_of("include/omnipoll.h")
        guides = ("docs/guide.md", "docs/serving.md", "c-examples/README.md")
        for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", *guides):
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
