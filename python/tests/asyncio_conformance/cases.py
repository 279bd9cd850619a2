"""The cases of CPython's test.test_asyncio, as this interpreter brings them."""

from __future__ import annotations

import fnmatch
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from unittest import TestCase, TestLoader, TestSuite

PACKAGE = "test.test_asyncio"

# No loop that a program can choose takes part in these.
LEFT_OUT = {
    "test_proactor_events": "the transports of Windows' completion loop, over mocks of it",
    "test_selector_events": "the inside of the standard library's selector loop, over mocks of a selector",
    "test_windows_events": "Windows",
    "test_windows_utils": "Windows",
}

# Those that do input and output by a loop, unless they ask for a certain selector.
ENGINES_CONCERNED = re.compile(
    r"test_(buffered_proto|events|sendfile|server|sock_lowlevel|ssl|sslproto|streams|subprocess|unix_events)\."
    r"(?!(EPoll|Poll|Select)EventLoopTests\.)"
)


def are_there() -> bool:
    """Some distributions leave the tests out."""
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        return False


def find(patterns: list[str]) -> dict[str, TestCase]:
    """The cases by their names, which begin with the module; a pattern is the beginning, or has wildcards."""
    loader = TestLoader()
    found = {
        case.id().replace(f"{PACKAGE}.", "", 1): case
        for module in modules()
        for case in flatten(loader.loadTestsFromName(f"{PACKAGE}.{module}"))
    }
    if patterns:
        return {name: case for name, case in found.items() if any(fits(name, one) for one in patterns)}
    return found


def modules() -> list[str]:
    folder = importlib.import_module(PACKAGE).__path__
    names = [module.name for module in pkgutil.iter_modules(folder)]
    return [name for name in names if name.startswith("test_") and name not in LEFT_OUT]


def flatten(suite: TestSuite) -> Iterator[TestCase]:
    for item in suite:
        if isinstance(item, TestSuite):
            yield from flatten(item)
        else:
            yield item


def fits(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def has_to_do_with_engine(name: str) -> bool:
    return ENGINES_CONCERNED.match(name) is not None
