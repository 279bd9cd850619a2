"""pulled.py: the echo server of ../pulled.c in Python, by ctypes alone.

Shows what a loop that is pulled is for: nothing of Python's is ever called from C. One call returns
what has happened, and the bytes lie in one buffer. The structs and functions below are copied from
omnipoll.h. Python's own signal handlers run when a call returns: SIGINT and SIGTERM are events of the
loop instead. (The package omnipoll has all this ready, and faster.)

Run:  python3 pulled.py [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
With --clients it ends after N clients have come and gone. The library is the one the loader
finds, or the file that OMNIPOLL_LIBRARY names.
"""

import argparse
import ctypes
import os
import signal
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

SIGNAL, DATA, ENDED, CLOSED, STOPPING = 3, 18, 19, 21, 22
BATCH, FOREVER, TIME_TO_STOP = 64, -1, 10_000_000_000


class Event(ctypes.Structure):
    """struct omni_loop_event."""

    _fields_ = (
        ("token", c_uint64),
        ("value", c_uint64),  # a connection here, which is a number without a sign
        ("offset", c_uint32),
        ("length", c_uint32),
        ("ready", c_uint32),
        ("kind", c_uint32),
    )


class Options(ctypes.Structure):
    """struct omni_loop_options."""

    _fields_ = (
        *((name, c_uint32) for name in ("size", "engine", "flags", "max_clients", "backlog", "reserved")),
        *((name, c_uint64) for name in ("queue_limit", "total_queue_limit", "high_water", "low_water")),
        *((name, c_int64) for name in ("idle_ns", "read_ns", "write_ns", "linger_ns")),
    )


omni = ctypes.CDLL(os.environ.get("OMNIPOLL_LIBRARY", "libomnipoll.so.0"))


def check(result, function, _):
    if result < 0:
        sys.exit(f"pulled.py: {omni.omni_last_error().decode()}")
    return result


def declare(name, *arguments, result=c_int, errcheck=None):
    function = getattr(omni, name)
    function.argtypes, function.restype = arguments, result
    if errcheck:
        function.errcheck = errcheck


# Handles are numbers.
declare("omni_last_error", result=c_char_p)
declare("omni_engine_by_name", c_char_p, errcheck=check)
declare("omni_loop_new", POINTER(Options), c_void_p, POINTER(c_uint64), errcheck=check)
declare("omni_loop_free", c_uint64, result=None)
declare("omni_loop_listen", c_uint64, c_char_p, c_void_p, c_uint64, errcheck=check)
declare("omni_loop_address", c_uint64, c_char_p, c_size_t, errcheck=check)
declare("omni_loop_buffer", c_uint64, POINTER(c_void_p), c_void_p, errcheck=check)
declare("omni_loop_wait", c_uint64, POINTER(Event), c_uint32, c_int64, errcheck=check)
declare("omni_loop_stop", c_uint64, c_int64, errcheck=check)
declare("omni_loop_poller", c_uint64, result=c_uint64)
declare("omni_poller_signal_add", c_uint64, c_int, c_uint64, errcheck=check)
declare("omni_conn_write", c_uint64, c_void_p, c_size_t)
declare("omni_conn_close", c_uint64)
declare("omni_conn_abort", c_uint64)


def new_loop(engine, address):
    options = Options(size=ctypes.sizeof(Options))
    if engine != "auto":
        options.engine = omni.omni_engine_by_name(engine.encode())
    out = c_uint64()
    omni.omni_loop_new(byref(options), None, byref(out))
    loop = out.value
    omni.omni_loop_listen(loop, address.encode(), None, 0)
    text = ctypes.create_string_buffer(256)
    omni.omni_loop_address(loop, text, len(text))
    print(f"listening on {text.value.decode()}", flush=True)
    for signo in (signal.SIGINT, signal.SIGTERM):
        omni.omni_poller_signal_add(omni.omni_loop_poller(loop), signo, 0)
    return loop


def serve(loop, limit):
    start = c_void_p()
    omni.omni_loop_buffer(loop, byref(start), None)
    events = (Event * BATCH)()
    finished = 0
    while limit == 0 or finished < limit:
        count = omni.omni_loop_wait(loop, events, BATCH, FOREVER)
        if count == 0:
            break  # it was stopped, and all clients have gone
        for event in events[:count]:
            if event.kind == DATA:
                # Not a byte is left out in silence.
                if omni.omni_conn_write(event.value, start.value + event.offset, event.length) < 0:
                    omni.omni_conn_abort(event.value)
            elif event.kind in (ENDED, STOPPING):
                omni.omni_conn_close(event.value)  # once it has been sent what waits for it
            elif event.kind == CLOSED:
                finished += 1
            elif event.kind == SIGNAL:
                omni.omni_loop_stop(loop, TIME_TO_STOP)


parser = argparse.ArgumentParser()
parser.add_argument("--engine", default="auto")
parser.add_argument("--address", default="127.0.0.1:0")
parser.add_argument("--clients", type=int, default=0)
options = parser.parse_args()
loop = new_loop(options.engine, options.address)
serve(loop, options.clients)
omni.omni_loop_free(loop)
