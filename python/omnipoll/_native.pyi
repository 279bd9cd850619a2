from collections.abc import Iterator
from selectors import SelectorKey
from types import TracebackType
from typing import Any, Final, final

from _typeshed import FileDescriptorLike
from typing_extensions import Self, disjoint_base

__all__ = [
    "EDGE",
    "ERROR",
    "EXCLUSIVE",
    "HANGUP",
    "HAS_EXCLUSIVE",
    "INVALID",
    "IO",
    "NATIVE_EDGE",
    "ONESHOT",
    "PRIORITY",
    "READ",
    "READ_CLOSED",
    "TELLS_HANGUP",
    "TELLS_READ_CLOSED",
    "WAKE",
    "WRITE",
    "Event",
    "Poller",
    "Selector",
    "__version__",
]

__version__: Final[str]

READ: Final[int]
WRITE: Final[int]
PRIORITY: Final[int]
READ_CLOSED: Final[int]
HANGUP: Final[int]
ERROR: Final[int]
INVALID: Final[int]
EDGE: Final[int]
ONESHOT: Final[int]
EXCLUSIVE: Final[int]

IO: Final[int]
WAKE: Final[int]

TELLS_HANGUP: Final[int]
TELLS_READ_CLOSED: Final[int]
NATIVE_EDGE: Final[int]
HAS_EXCLUSIVE: Final[int]

@final
class Event:
    @property
    def token(self) -> Any: ...
    @property
    def value(self) -> int: ...
    @property
    def ready(self) -> int: ...
    @property
    def kind(self) -> int: ...

@disjoint_base
class Poller:
    def __new__(cls, engine: str | None = None, *, files_always_ready: bool = False) -> Self: ...
    def add(self, fd: FileDescriptorLike, interest: int, token: object = None) -> None: ...
    def modify(self, fd: FileDescriptorLike, interest: int, token: object = None) -> None: ...
    def remove(self, fd: FileDescriptorLike) -> None: ...
    def rearm(self, fd: FileDescriptorLike, interest: int) -> None: ...
    def wait(self, timeout: float | None = None, max_events: int | None = None) -> list[Event]: ...
    def wake(self) -> None: ...
    def after_fork(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def engine(self) -> str: ...
    @property
    def capabilities(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...
    def __iter__(self) -> Iterator[Event]: ...
    def _wait_unless_closed(self) -> list[Event] | None: ...

@disjoint_base
class Selector:
    def __new__(cls, engine: str | None, files_always_ready: bool) -> Self: ...
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]: ...
    def after_fork(self) -> None: ...
    @property
    def engine(self) -> str: ...
    def _add(self, fd: int, events: int, key: SelectorKey) -> None: ...
    def _modify(self, fd: int, events: int, key: SelectorKey) -> None: ...
    def _rename(self, fd: int, key: SelectorKey) -> None: ...
    def _remove(self, fd: int) -> None: ...
    def _rearm(self, fd: int, events: int) -> None: ...
    def _close(self) -> None: ...
