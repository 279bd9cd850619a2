"""Programs that are measured without a client: each does so many operations of its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable

BATCH = 1000  # callbacks that are ready at once


def nothing() -> None:
    pass


async def return_at_once() -> None:
    pass


async def call_soon(operations: int) -> None:
    """Callbacks that are scheduled a thousand at a time, and run."""
    loop = asyncio.get_running_loop()
    for _ in range(max(1, operations // BATCH)):
        done = loop.create_future()
        for _ in range(BATCH - 1):
            loop.call_soon(nothing)
        loop.call_soon(done.set_result, None)
        await done


async def call_later(operations: int) -> None:
    """Timers that are made and cancelled, as those of timeouts are."""
    loop = asyncio.get_running_loop()
    for _ in range(max(1, operations // BATCH)):
        for _ in range(BATCH):
            loop.call_later(60, nothing).cancel()
        await asyncio.sleep(0)


async def threadsafe(operations: int) -> None:
    """Callbacks that another thread schedules."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def schedule() -> None:
        for _ in range(operations - 1):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(done.set_result, None)

    await loop.run_in_executor(None, schedule)
    await done


async def task(operations: int) -> None:
    """A task that goes once through the loop, and is awaited."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        await loop.create_task(asyncio.sleep(0))


async def queue(operations: int) -> None:
    """What one task puts and another one gets, one item at a time."""
    items: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for number in range(operations):
            await items.put(number)

    producer = asyncio.get_running_loop().create_task(produce())
    for _ in range(operations):
        await items.get()
    await producer


async def executor(operations: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        await loop.run_in_executor(None, nothing)


async def wait_for(operations: int) -> None:
    for _ in range(operations):
        await asyncio.wait_for(return_at_once(), 60)


async def subprocess(operations: int) -> None:
    """Programs that are started and waited for; their own CPU time is not counted."""
    for _ in range(operations):
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()


PROGRAMS: dict[str, Callable[[int], Awaitable[None]]] = {
    program.__name__: program
    for program in (call_soon, call_later, threadsafe, task, queue, executor, wait_for, subprocess)
}
