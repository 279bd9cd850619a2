"""Runs a proxy that the system has as a package: packaged.py haproxy|nginx ADDRESS:PORT.

Becomes the proxy, one process with one thread, which listens on a free port of the loopback device; prints
the port when it does. Its configuration lies in memory.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time

import build

HAPROXY = """
global
    nbthread 1
    maxconn 9500
    log stderr local0 emerg
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen proxy
    bind 127.0.0.1:{port}
    server backend {backend}
"""
# worker_connections counts both sides.
NGINX = """
load_module {modules}/ngx_stream_module.so;
daemon off;
master_process off;
error_log stderr crit;
pid {built}/nginx.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 19500; multi_accept on; }}
stream {{
    server {{
        listen 127.0.0.1:{port} reuseport;
        proxy_pass {backend};
        proxy_half_close on;
    }}
}}
"""
CONFIGURATIONS = {"haproxy": HAPROXY, "nginx": NGINX}
OPTIONS = {"haproxy": ["-db", "-q", "-f"], "nginx": ["-e", "stderr", "-c"]}
MODULES = "/usr/lib/nginx/modules"


def installed(name: str) -> str | None:
    """Where the program is, or None."""
    if name == "nginx" and not os.path.exists(f"{MODULES}/ngx_stream_module.so"):
        return None
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def memory_file(text: str) -> str:
    """The path under which the program that this one becomes finds a text."""
    fd = os.memfd_create("configuration", 0)
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"


def tell_when_it_listens(port: int) -> None:
    """By a process of its own, for this one becomes the proxy."""
    if os.fork() != 0:
        return
    for _ in range(1000):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                print(port, flush=True)
                break
        time.sleep(0.01)
    os._exit(0)


def main(name: str, backend: str) -> None:
    program = installed(name)
    assert program, f"{name} is installed"
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taken.bind(("127.0.0.1", 0))
    taken.set_inheritable(True)  # so that nobody else gets the port
    port = taken.getsockname()[1]
    tell_when_it_listens(port)
    path = memory_file(
        CONFIGURATIONS[name].format(modules=MODULES, built=build.BUILT, port=port, backend=backend)
    )
    os.execv(program, [program, *OPTIONS[name], path])


if __name__ == "__main__":
    main(*sys.argv[1:])
