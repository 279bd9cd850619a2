"""Selectors with the interface of the standard library's `selectors`, and more to ask for.

A program written for `selectors` runs on these unchanged. `register` and `modify` also accept

- EVENT_PRIORITY: urgent data,
- EVENT_EDGE: report when the condition arises, not as long as it holds; read or write until
  BlockingIOError, then call `rearm`,
- EVENT_ONESHOT: report once, then be silent until `modify`,
- EVENT_EXCLUSIVE: of several selectors that watch one file, wake one or a few (epoll and io_uring,
  ValueError elsewhere; such a registration's events can't be modified).

Where they differ from the standard ones:

- Timeouts count nanoseconds, where the engine does, and are never early.
- A regular file is refused on every engine (PermissionError), not on epoll alone, unless the
  selector is made with files_always_ready=True; so is a descriptor that is not open.
- A file object closed while registered is reported once with all its events, where the system
  reports it (select and poll); the standard PollSelector reports it endlessly, and the
  standard SelectSelector raises. Its key stays in the map until it is unregistered.
- Any thread may register and unregister while another is in `select`; the change counts at once.
- Closing a selector ends a `select` in progress with ValueError.
- After `os.fork` the child's use of an inherited selector is an OSError (EOWNERDEAD) until it
  calls `after_fork`; but `unregister` and `close` work, and change nothing of the parent's.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import TYPE_CHECKING, Any

from omnipoll import _native

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = [
    "EVENT_EDGE",
    "EVENT_EXCLUSIVE",
    "EVENT_ONESHOT",
    "EVENT_PRIORITY",
    "EVENT_READ",
    "EVENT_WRITE",
    "BaseSelector",
    "DefaultSelector",
    "EpollSelector",
    "IoUringSelector",
    "PollSelector",
    "SelectSelector",
    "SelectorKey",
]

EVENT_PRIORITY = _native.PRIORITY
EVENT_EDGE = _native.EDGE
EVENT_ONESHOT = _native.ONESHOT
EVENT_EXCLUSIVE = _native.EXCLUSIVE

_DIRECTIONS = EVENT_READ | EVENT_WRITE | EVENT_PRIORITY
_TRIGGERS = EVENT_EDGE | EVENT_ONESHOT | EVENT_EXCLUSIVE


class _Map(Mapping["FileDescriptorLike", SelectorKey]):
    """What a selector's `get_map` returns: file object or descriptor -> key, read-only."""

    def __init__(self, selector: _Selector) -> None:
        self._selector = selector

    def __len__(self) -> int:
        return len(self._selector._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._selector._keys)

    def __getitem__(self, fileobj: FileDescriptorLike) -> SelectorKey:
        return self._selector._find(fileobj)


class _Selector(_native.Selector, BaseSelector):
    """The standard interface, once for every engine. `select` is the native class's."""

    _engine: str | None = None

    def __init__(self, *, files_always_ready: bool = False) -> None:
        super().__init__(self._engine, files_always_ready)
        self._keys: dict[int, SelectorKey] = {}
        self._map: _Map | None = _Map(self)

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        """Start watching a file object and return its key.

        Raises ValueError for invalid events or an invalid file object, KeyError when it is
        registered, OSError when the engine refuses it (EBADF, EPERM) and when the selector
        is used in a forked child, ValueError when it is closed.
        """
        _check(events)
        key = SelectorKey(fileobj, self._descriptor(fileobj), events, data)
        if key.fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {key.fd}) is already registered")
        try:
            self._add(key.fd, events, key)
        except _native.StrictWarning:  # It was added, and a filter makes the warning an error.
            self._remove(key.fd)
            raise
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Stop watching a file object, closed or not, and return the key it had.

        Raises KeyError when it is not registered.
        """
        key = self._find(fileobj)
        try:
            self._remove(key.fd)
        except FileNotFoundError:
            pass  # It was closed, and that was reported.
        except OSError as error:
            if error.errno != errno.EOWNERDEAD:
                raise
            self._forget(key.fd)
        del self._keys[key.fd]
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        """Change what a registered file object is watched for, or its data.

        A ONESHOT that has fired and an EDGE report again, even when nothing is changed.
        Raises KeyError when the file object is not registered, and else as `register`; when
        the engine refuses the change, the file object is no longer registered.
        """
        key = self._find(fileobj)
        _check(events)
        rearms = events & (EVENT_EDGE | EVENT_ONESHOT) and not events & EVENT_EXCLUSIVE
        changes = events != key.events
        key = SelectorKey(key.fileobj, key.fd, events, data)
        if changes or rearms:
            try:
                self._modify(key.fd, events, key)
            except BaseException as error:
                if not (isinstance(error, OSError) and error.errno == errno.EOWNERDEAD):
                    self.unregister(key.fd)
                raise
        else:
            self._rename(key.fd, key)
        self._keys[key.fd] = key
        return key

    def rearm(self, fileobj: FileDescriptorLike, events: int | None = None) -> None:
        """Say of an EVENT_EDGE registration that it was read or written until BlockingIOError.

        events: the directions that were; all of the key's without it. The next readiness is
        an edge again. Free on epoll. Raises KeyError when the file object is not registered,
        ValueError when it is registered with EVENT_ONESHOT, which `modify` re-enables.
        """
        key = self._find(fileobj)
        self._rearm(key.fd, key.events & _DIRECTIONS if events is None else events)

    def close(self) -> None:
        """Give everything back. The file objects stay open. Closing twice is closing once."""
        self._close()
        self._keys.clear()
        self._map = None

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """Return the live, read-only mapping of file objects to keys; None once closed."""
        return self._map  # type: ignore[return-value]  # As the standard selectors do.

    def _find(self, fileobj: FileDescriptorLike) -> SelectorKey:
        try:
            return self._keys[self._descriptor(fileobj)]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def _descriptor(self, fileobj: FileDescriptorLike) -> int:
        """The number of a file object; the registered one when it was closed meanwhile."""
        try:
            fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            fd = None
        if fd is not None and fd >= 0:
            return fd
        for key in self._keys.values():
            if key.fileobj is fileobj:
                return key.fd
        if fd is None:
            raise ValueError(f"Invalid file object: {fileobj!r}")
        raise ValueError(f"Invalid file descriptor: {fd}")


def _check(events: int) -> None:
    if not events or not events & _DIRECTIONS or events & ~(_DIRECTIONS | _TRIGGERS):
        raise ValueError(f"Invalid events: {events!r}")


class SelectSelector(_Selector):
    """A selector on select(2), without its limit of 1024 descriptors.

    >>> import os, omnipoll
    >>> reader, writer = os.pipe()
    >>> with omnipoll.SelectSelector() as selector:
    ...     key = selector.register(reader, omnipoll.EVENT_READ, data="greetings")
    ...     _ = os.write(writer, b"hello")
    ...     for key, events in selector.select(timeout=10):
    ...         print(key.data, os.read(key.fd, 100))
    greetings b'hello'
    >>> os.close(reader); os.close(writer)
    """

    _engine = "select"


class PollSelector(_Selector):
    """A selector on poll(2).

    >>> import os, omnipoll
    >>> reader, writer = os.pipe()
    >>> with omnipoll.PollSelector() as selector:
    ...     key = selector.register(writer, omnipoll.EVENT_WRITE)
    ...     [(key.fd == writer, events == omnipoll.EVENT_WRITE) for key, events in selector.select()]
    [(True, True)]
    >>> os.close(reader); os.close(writer)
    """

    _engine = "poll"


class EpollSelector(_Selector):
    """A selector on epoll(7). It has EVENT_EXCLUSIVE.

    >>> import omnipoll, socket
    >>> listener = socket.create_server(("127.0.0.1", 0))
    >>> with omnipoll.EpollSelector() as selector:
    ...     events = omnipoll.EVENT_READ | omnipoll.EVENT_EXCLUSIVE
    ...     key = selector.register(listener, events)
    ...     client = socket.create_connection(listener.getsockname())
    ...     [key.fileobj is listener for key, events in selector.select(timeout=10)]
    [True]
    >>> client.close(); listener.close()
    """

    _engine = "epoll"

    def fileno(self) -> int:
        """Return the descriptor of the epoll, readable while something registered is ready.

        So another selector can watch this one. Raises ValueError when the selector is closed.
        """
        return self._fileno()


class IoUringSelector(_Selector):
    """A selector on io_uring(7). It has EVENT_EXCLUSIVE.

    Where the kernel refuses (before Linux 5.17, or where it is forbidden, as in most containers)
    making one is an OSError with errno ENOSYS that says why. register() and modify() cost no system
    call of their own: select() hands the changes over.

    >>> import omnipoll, socket
    >>> ours, theirs = socket.socketpair()
    >>> with omnipoll.IoUringSelector() as selector:  # doctest: +SKIP
    ...     key = selector.register(ours, omnipoll.EVENT_READ)
    ...     _ = theirs.send(b"x")
    ...     [key.fileobj is ours for key, events in selector.select(timeout=10)]
    [True]
    >>> ours.close(); theirs.close()
    """

    _engine = "io_uring"


class DefaultSelector(_Selector):
    """A selector on the engine OMNIPOLL_ENGINE names in the environment, or else on the best.

    >>> import asyncio, omnipoll
    >>> loop = asyncio.SelectorEventLoop(omnipoll.DefaultSelector())
    >>> loop.run_until_complete(asyncio.sleep(0.001, "slept"))
    'slept'
    >>> loop.close()
    """

    def fileno(self) -> int:
        """Return the engine's descriptor, as EpollSelector does.

        Raises io.UnsupportedOperation, an OSError, on engines without one: all but epoll.
        """
        return self._fileno()
