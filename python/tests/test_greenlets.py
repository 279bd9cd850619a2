"""gevent and eventlet, by modules that answer as theirs do."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import pytest
from serving import Echo

import omnipoll

MAKERS: list[Any] = [
    omnipoll.Poller,
    omnipoll.DefaultSelector,
    omnipoll.SelectSelector,
    lambda: omnipoll.Server(Echo()),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("module", "function"),
    [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")],
)
def test_what_has_patched_is_named(
    module: str, function: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = {"socket"}
    fake = types.ModuleType(module)
    setattr(fake, function, patched.__contains__)
    monkeypatch.setitem(sys.modules, module, fake)
    with pytest.warns(RuntimeWarning, match=f"{module.partition('.')[0]} has patched") as warned:
        make()
    assert [one.filename for one in warned] == [__file__]
    patched.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()
