"""A policy for programs that let asyncio make their loops."""

from __future__ import annotations

import asyncio

from omnipoll.aio.event_loop import EventLoop


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's policy, with loops of omnipoll's."""

    def __init__(self, engine: str | None = None) -> None:
        """Make loops on an engine."""
        super().__init__()
        self._engine = engine

    def new_event_loop(self) -> EventLoop:
        """Return a new loop, which is not the current one."""
        return EventLoop(self._engine)
