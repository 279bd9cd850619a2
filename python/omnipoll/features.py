"""Which features of the kernel an engine uses, and why not the others."""

from __future__ import annotations

import os
from typing import NamedTuple

from omnipoll import _native

__all__ = ["EngineFeature", "engine_features"]


class EngineFeature(NamedTuple):
    """A feature of the kernel that an engine uses where it can; without it, the engine has another way."""

    #: The name of the system call, the flag or the request.
    name: str
    #: The version of Linux that it came with: "6.12".
    linux: str
    #: What the kernel has answered where it is not in use: ENOTTY, EINVAL and ENOSYS are those of an older
    #: one, EPERM is that of a filter. None where it is in use.
    error: OSError | None


def engine_features(engine: str) -> list[EngineFeature]:
    """The features that pollers, loops and servers on an engine use, and those that they would use if the
    kernel had or permitted them. Each is tried out, by system calls on descriptors of its own.

    Empty for "select" and "poll". Raises ValueError for a name that is no engine's.

    >>> import omnipoll
    >>> for feature in omnipoll.engine_features("epoll"):
    ...     if feature.name == "EPOLLEXCLUSIVE":
    ...         print(feature.linux, feature.error)
    4.5 None
    """
    return [
        EngineFeature(name, linux, None if errno is None else OSError(errno, os.strerror(errno)))
        for name, linux, errno in _native._engine_features(engine)
    ]
