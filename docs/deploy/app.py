#!/usr/bin/env python3
"""The server behind HAProxy, nginx and systemd of this folder: it answers each request over HTTP/1.1 with the
client's address and the number of the connection's request.

    app.py [--model prefork] [--engine auto] [--proxy-header] --address 127.0.0.1:7000
"""

from __future__ import annotations

import argparse

import omnipoll


class App:
    def on_open(self, connection: omnipoll.Connection) -> None:
        connection.token = 0
        connection.set_frame_until(b"\r\n\r\n", 16384)  # A request without a body.

    def on_data(self, connection: omnipoll.Connection, data: bytes) -> None:
        connection.token += 1
        body = b"%s %d\n" % (connection.peer.encode(), connection.token)
        ends = connection.is_stopping or b"\r\nconnection: close" in data.lower()
        close = b"Connection: close\r\n" if ends else b""
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), close, body))
        if ends:
            connection.close()

    def on_stop(self, connection: omnipoll.Connection) -> None:
        # One that is new has a request on its way, which is answered.
        if connection.token > 0:
            connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="prefork")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--proxy-header", action="store_true")
    parser.add_argument("--address", default="127.0.0.1:0")
    given = parser.parse_args()
    server = omnipoll.Server(
        App(),
        given.address,
        model=given.model,
        engine=given.engine,
        proxy_header=5 if given.proxy_header else None,
        idle_timeout=60,
        signals=True,
        notify=True,
        restart=True,
        hang_timeout=30,
    )
    print(*server.addresses, flush=True)
    server.run()
