"""Names that are not known: what they may have been meant as."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["check_loop_options", "check_options", "not_known"]

# Those of a server: Python 3.9 knows no signatures of native classes.
OPTIONS = (
    "model",
    "engine",
    "workers",
    "max_clients",
    "backlog",
    "reuse_port",
    "queue_limit",
    "total_queue_limit",
    "high_water",
    "low_water",
    "idle_timeout",
    "read_timeout",
    "write_timeout",
    "linger",
    "signals",
    "drain",
    "wait_policy",
    "proxy_header",
    "allow",
    "deny",
    "max_address_clients",
    "max_address_rate",
    "max_receive_rate",
    "keep_alive",
    "no_delay",
    "receive_buffer",
    "send_buffer",
    "defer_accept",
    "fast_open",
    "free_bind",
    "transparent",
    "multicast",
    "unix_mode",
    "unix_owner",
    "pin_workers",
    "notify",
    "restart",
    "restart_timeout",
    "on_restart",
    "clients_per_worker",
    "clients_jitter",
    "hang_timeout",
)

LOOP_OPTIONS = (
    "engine",
    "handler",
    "max_clients",
    "backlog",
    "queue_limit",
    "total_queue_limit",
    "high_water",
    "low_water",
    "idle_timeout",
    "read_timeout",
    "write_timeout",
    "linger",
    "wait_policy",
    "proxy_header",
    "allow",
    "deny",
    "max_address_clients",
    "max_address_rate",
    "max_receive_rate",
)


def check_options(unknown: Iterable[str]) -> None:
    """Raises TypeError for what is no option of a server."""
    for name in unknown:
        raise TypeError(not_known(f"Server() got an unexpected keyword argument '{name}'", name, OPTIONS))


def check_loop_options(unknown: Iterable[str]) -> None:
    """Raises TypeError for what is no option of a loop."""
    for name in unknown:
        raise TypeError(not_known(f"Loop() got an unexpected keyword argument '{name}'", name, LOOP_OPTIONS))


def not_known(words: str, name: str, known: Sequence[str]) -> str:
    """The words, with the name that is spelt almost alike and all those that there are."""
    guesses = [f"did you mean '{meant}'?" for meant in difflib.get_close_matches(name, known, n=1)]
    return " ".join([f"{words}:", *guesses, f"there are {', '.join(known)}"])
