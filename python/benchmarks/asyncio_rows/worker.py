"""The process that is measured: one program of a row on one loop.

    python -m asyncio_rows.worker LOOP PROGRAM CORE [CERTIFICATE]

Prints one line of JSON: its process ID, and the port of a server or the error that it ended with. A server
serves until it is killed. A program without a load reads numbers of operations from its standard input,
a line each, and answers each with a line when it has done them.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import traceback

from asyncio_rows import inside, loops, servers


def certified(path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def report(**values: object) -> None:
    print(json.dumps({"pid": os.getpid(), **values}), flush=True)


def serve(loop: asyncio.AbstractEventLoop, name: str, certificate: str) -> None:
    context = certified(certificate) if certificate else None

    async def start() -> int:
        return await servers.SERVERS[name](context)

    report(port=loop.run_until_complete(start()))
    loop.run_forever()


def run(loop: asyncio.AbstractEventLoop, name: str) -> None:
    async def turn(operations: int) -> None:
        await inside.PROGRAMS[name](operations)

    loop.run_until_complete(turn(10))  # What can't be done fails here.
    report()
    for line in sys.stdin:
        loop.run_until_complete(turn(int(line)))
        print("done", flush=True)


def main(name: str, program: str, core: str, certificate: str = "") -> None:
    os.sched_setaffinity(0, {int(core)})
    try:
        loop = loops.maker(name)()
        asyncio.set_event_loop(loop)
        if program in servers.SERVERS:
            serve(loop, program, certificate)
        else:
            run(loop, program)
    except Exception as error:
        traceback.print_exc()
        report(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
