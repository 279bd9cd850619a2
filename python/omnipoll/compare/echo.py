"""The server that is measured: an echo, with a handler in Python.

    python -m omnipoll.compare.echo --model MODEL --engine ENGINE --address ADDRESS --max-clients N

Prints the address it listens on and serves until SIGTERM, or until its parent has died.
"""

from __future__ import annotations

import argparse
import ctypes
import signal

import omnipoll

PR_SET_PDEATHSIG = 1


class Echo:
    """Sends back what comes."""

    def on_data(self, conn: omnipoll.Connection, data: bytes) -> None:
        """Called with each piece that was read."""
        conn.write(data)


def main() -> None:
    """Serves as the command line says."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--engine", "--address"):
        parser.add_argument(name, required=True)
    parser.add_argument("--max-clients", type=int)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    server = omnipoll.Server(
        Echo(),
        options.address,
        model=options.model,
        engine=options.engine,
        max_clients=options.max_clients,
        signals=True,
        drain=0,
    )
    print(*server.addresses, flush=True)
    server.run()


if __name__ == "__main__":
    main()
