"""`python -m omnipoll info`: what it says is what the package does."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

import omnipoll
from omnipoll import info


def say(*options: str, code: str = "pass", **environment: str) -> str:
    """What the command prints; `code` runs before it."""
    start = f"import sys; {code}; from omnipoll.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start, "info", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def facts(**environment: str) -> Any:
    return json.loads(say("--json", **environment))


def test_every_engine_is_listed_with_what_it_can_or_why_it_is_refused() -> None:
    engines = facts()["engines"]
    assert list(engines) == ["select", "poll", "epoll", "io_uring"]
    for name, said in engines.items():
        try:
            with omnipoll.Poller(name) as poller:
                capabilities = poller.capabilities
        except OSError as refusal:
            assert said == {"available": False, "reason": refusal.strerror, "reports": [], "features": {}}
        else:
            reports = [words for bit, words in info.CAPABILITIES.items() if capabilities & bit]
            features = said.pop("features")
            assert said == {"available": True, "reason": None, "reports": reports}
            assert bool(features) == (name in ("epoll", "io_uring"))
            for one in omnipoll.engine_features(name):
                reason = one.error and one.error.strerror
                assert features[one.name] == {"used": not reason, "linux": one.linux, "reason": reason}


def test_an_engine_that_there_is_not() -> None:
    said = info.engine("kqueue")
    assert not said["available"]
    assert "not available" in said["reason"]
    assert info.engine_in_words(said, False) == f"no: {said['reason']}"


def test_the_default_engine_and_the_environment() -> None:
    os.environ.pop("OMNIPOLL_ENGINE", None)
    with omnipoll.Poller() as poller:
        assert facts()["default_engine"] == poller.engine
    said = facts(OMNIPOLL_ENGINE="poll", OMNIPOLL_STRICT="0")
    assert said["default_engine"] == "poll"
    assert said["environment"]["OMNIPOLL_ENGINE"] == "poll"
    assert said["environment"]["OMNIPOLL_STRICT"] == "0"


def test_a_wrong_environment_is_reported_and_not_an_error() -> None:
    assert facts(OMNIPOLL_ENGINE="abacus")["default_engine"] is None
    assert "OMNIPOLL_ENGINE=abacus is not available" in say(OMNIPOLL_ENGINE="abacus")


def test_features_are_tried_out() -> None:
    features = facts()["features"]
    assert list(features) == ["pidfd", "SO_REUSEPORT", "UDP batches"]
    for said in features.values():
        assert said["available"] == (said["reason"] is None)


def test_features_of_engines() -> None:
    assert omnipoll.engine_features("select") == omnipoll.engine_features("poll") == []
    assert omnipoll.EngineFeature("EPOLLEXCLUSIVE", "4.5", None) in omnipoll.engine_features("epoll")
    with pytest.raises(ValueError, match="there is no engine named 'abacus'"):
        omnipoll.engine_features("abacus")
    old = {"used": False, "linux": "9.9", "reason": "old"}
    one = {"available": True, "reports": [], "features": {"x": old}}
    assert info.engine_in_words(one, True) == "yes, the default\n- x, Linux 9.9: no, old"


def test_a_feature_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(info.FEATURES, "more", ("is asked for", lambda: info.system_call(-1) and None))
    assert info.feature("more") == {"available": False, "reason": os.strerror(38), "purpose": "is asked for"}


def test_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = facts()["limits"]
    assert said["descriptors"] == (None if soft == resource.RLIM_INFINITY else soft)
    assert said["descriptors at most"] == (None if hard == resource.RLIM_INFINITY else hard)
    assert said["processes and threads"] is None or said["processes and threads"] > 1


def test_text_names_everything() -> None:
    text, said = say(), facts()
    for section in ("engines", "features", "limits"):
        for name in said[section]:
            assert name in text
    assert "yes, the default" in text
    assert omnipoll.__version__ in text


def test_text_without_rich_is_the_same() -> None:
    assert say(code="sys.modules['rich'] = None") == say()


def test_text_with_rich(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    every = info.sections(info.gather())
    info.print_rich(every)
    printed = capsys.readouterr().out
    for title, lines in every:
        assert title in printed
        for name, _ in lines:
            assert name in printed
