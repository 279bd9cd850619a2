"""Names that are not known: what they may have been meant as."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence

from omnipoll import _native

__all__ = ["check_options", "not_known"]


def check_options(unknown: Iterable[str]) -> None:
    """Raises TypeError for what is no option of a server."""
    for name in unknown:
        parameters = inspect.signature(_native.Server).parameters.values()
        known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        raise TypeError(not_known(f"Server() got an unexpected keyword argument '{name}'", name, known))


def not_known(words: str, name: str, known: Sequence[str]) -> str:
    """The words, with the name that is spelt almost alike and all those that there are."""
    guesses = [f"did you mean '{meant}'?" for meant in difflib.get_close_matches(name, known, n=1)]
    return " ".join([f"{words}:", *guesses, f"there are {', '.join(known)}"])
