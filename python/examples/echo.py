"""Sends back what it is sent: python echo.py [ADDRESS [MODEL]]."""

import sys

import omnipoll
from omnipoll import Connection


class Echo:
    def on_data(self, connection: Connection, data: bytes) -> None:
        connection.write(data)


def main(address: str = "127.0.0.1:7000", model: str = "reactor") -> None:
    server = omnipoll.Server(Echo(), address, model=model, signals=True)
    print("listening on", *server.addresses, flush=True)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
