"""The documentation: every example runs, everything public is described."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import omnipoll
import omnipoll.selectors
import omnipoll.serving
from omnipoll import _native
from omnipoll.spelling import LOOP_OPTIONS, OPTIONS

README = Path(__file__).parent.parent / "README.md"
NATIVE = [omnipoll.Event, omnipoll.Finding, omnipoll.Poller, omnipoll.Registered, omnipoll.Stats]
SERVING = [
    omnipoll.Connection,
    omnipoll.Datagram,
    omnipoll.DatagramSocket,
    omnipoll.Loop,
    omnipoll.LoopEvent,
    omnipoll.Server,
    omnipoll.ServerStats,
    omnipoll.Worker,
    omnipoll.WorkerStats,
]
CLASSES = [*NATIVE, *SERVING, *map(omnipoll.__dict__.get, omnipoll.selectors.__all__)]
OURS = [one for one in CLASSES if inspect.isclass(one) and one.__module__.startswith("omnipoll")]


@pytest.mark.parametrize(
    "module", [omnipoll, omnipoll.selectors, omnipoll.serving, _native], ids=lambda module: module.__name__
)
def test_the_examples_in_docstrings(module: types.ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= {omnipoll.selectors: 10, omnipoll.serving: 3}.get(module, 0)


def documentation(one: type) -> dict[str, str]:
    """doctest passes native classes over."""
    methods = {f"{one.__name__}.{name}": inspect.getdoc(getattr(one, name)) for name in vars(one)}
    every = {one.__name__: one.__doc__, **methods}
    return {name: words for name, words in every.items() if words and ">>>" in words}


EXAMPLES = {
    **documentation(omnipoll.Poller),
    **documentation(omnipoll.Loop),
    **documentation(_native.Server),
}


@pytest.mark.parametrize(("name", "words"), EXAMPLES.items())
def test_the_examples_of_native_classes(name: str, words: str) -> None:
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(words, {}, name, None, 0))
    assert runner.summarize().attempted > 1
    assert runner.summarize().failed == 0


def test_there_are_examples_of_native_classes() -> None:
    methods = ("timer_add", "timer_add_at", "timer_set", "signal_add", "child_add", "post")
    assert {"Poller", *(f"Poller.{name}" for name in methods)} <= set(EXAMPLES)
    assert {"Loop", "Loop.connect", "Loop.wait"} <= set(EXAMPLES)


def test_the_examples_in_the_readme() -> None:
    blocks = README.read_text().split("```python\n")[1:]
    assert len(blocks) >= 3
    for block in blocks:
        subprocess.run([sys.executable, "-c", block.split("```")[0]], check=True, timeout=30)


@pytest.mark.parametrize("one", OURS, ids=lambda one: one.__name__)
def test_everything_public_is_described(one: type) -> None:
    assert one.__doc__
    for name in dir(one):
        if not name.startswith("_"):
            assert inspect.getdoc(getattr(one, name)), f"{one.__name__}.{name}"


def test_all_is_there() -> None:
    for module in (omnipoll, omnipoll.selectors, omnipoll.serving):
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name)


def test_signatures_are_shown() -> None:
    if sys.version_info >= (3, 10):  # 3.9 knows no signatures of native classes.
        keywords = "files_always_ready=False, strict=False, on_finding=None, wait_policy='balanced'"
        signature = f"(engine=None, *, {keywords})"
        assert str(inspect.signature(omnipoll.Poller)) == signature
        _handler, _address, *options = inspect.signature(omnipoll.Server).parameters
        assert tuple(options) == OPTIONS
        assert tuple(inspect.signature(omnipoll.Loop).parameters) == LOOP_OPTIONS
    assert str(inspect.signature(omnipoll.Poller.wait)) == "(self, /, timeout=None, max_events=None)"
    assert str(inspect.signature(omnipoll.EpollSelector.select)) == "(self, /, timeout=None)"
