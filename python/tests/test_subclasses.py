"""Subclasses with an `__init__` of their own, as those of the standard selectors may have."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SELECTORS, Pipe
from serving import Echo, ask, connect

import omnipoll
from omnipoll import READ, Poller


@pytest.mark.parametrize("base", [*SELECTORS, omnipoll.DefaultSelector])
def test_a_selector(base: Any, pipe: Pipe) -> None:
    class Mine(base):  # type: ignore[misc]
        def __init__(self, name: str, *, often: int) -> None:
            super().__init__(files_always_ready=True)
            self.name = name

    with Mine("mine", often=3) as selector, open(__file__) as file:
        assert selector.name == "mine"
        selector.register(file, omnipoll.EVENT_READ)
        assert [key.fileobj for key, _ in selector.select(0)] == [file]


def test_a_poller(engine: str, pipe: Pipe) -> None:
    class Mine(Poller):
        def __init__(self, name: str) -> None:
            super().__init__(engine)
            self.name = name

    with Mine("mine") as poller:
        assert (poller.name, poller.engine) == ("mine", engine)
        poller.add(pipe.reader, READ)
        assert poller.wait(0) == []


def test_a_server(engine: str) -> None:
    class Mine(omnipoll.Server):
        def __init__(self, name: str) -> None:
            super().__init__(Echo(), "127.0.0.1:0", engine=engine)
            self.name = name

    with Mine("mine") as server, connect(server) as client:
        assert (server.name, server.engine) == ("mine", engine)
        assert ask(client, b"hello") == b"hello"


class NoPoller(Poller):
    def __init__(self, name: str) -> None:
        pass


class NoServer(omnipoll.Server):
    def __init__(self, name: str) -> None:
        pass


def test_one_that_leaves_out_the_base() -> None:
    for use in (lambda: NoPoller("mine").wait(0), lambda: NoServer("mine").addresses):
        with pytest.raises(RuntimeError, match=r"super\(\).__init__"):
            use()
    poller = NoPoller("mine")
    poller.close()
    assert "not initialized" in repr(poller)
    assert "not initialized" in repr(NoServer("mine"))


def test_once_is_enough(engine: str) -> None:
    with Poller(engine) as poller, pytest.raises(RuntimeError, match="before"):
        poller.__init__(engine)  # type: ignore[misc]
