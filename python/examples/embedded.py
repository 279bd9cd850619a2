"""An echo server on an omnipoll.Loop that another loop runs: python embedded.py [asyncio|tk [ENGINE]].

That one waits for the loop's descriptor, and calls run_once(0) whenever it is readable. Tk stands here for
any program with windows; it needs none.
"""

import asyncio
import signal
import sys

from omnipoll import Connection, Event, Loop


class Echo:
    def on_data(self, connection: Connection, data: bytes) -> None:
        connection.write(data)

    def on_stop(self, connection: Connection) -> None:
        connection.close()

    def on_event(self, loop: Loop, event: Event) -> None:
        loop.stop(10)


async def in_asyncio(loop: Loop) -> None:
    running, ended = asyncio.get_running_loop(), asyncio.Event()

    def step() -> None:
        if not loop.run_once(0):
            running.remove_reader(loop.fileno())
            ended.set()

    running.add_reader(loop.fileno(), step)
    await ended.wait()


def in_tk(loop: Loop) -> None:
    import tkinter

    tk = tkinter.Tcl().tk
    ended = []

    def step(descriptor: int, events: int) -> None:
        if not loop.run_once(0):
            tk.deletefilehandler(descriptor)
            ended.append(True)

    tk.createfilehandler(loop.fileno(), tkinter.READABLE, step)
    while not ended:
        tk.dooneevent(0)


def main(host: str = "asyncio", engine: str = "auto") -> None:
    with Loop(engine, handler=Echo()) as loop:
        address = loop.listen("127.0.0.1:0")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.poller.signal_add(number)
        print("listening on", address, flush=True)
        if host == "asyncio":
            asyncio.run(in_asyncio(loop))
        else:
            in_tk(loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
