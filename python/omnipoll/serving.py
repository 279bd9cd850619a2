"""Serving many clients behind one handler: `Server` and `serve`."""

from __future__ import annotations

import threading
import warnings
from types import TracebackType
from typing import TYPE_CHECKING

from omnipoll import _native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self, Unpack

__all__ = ["Server", "serve"]

FORKING = ("fork", "prefork")


class Server(_native.Server):
    """Serves clients with a handler, in the way that `model` names.

    handler: any object with some of these methods; what it hasn't takes the default. TypeError for
    one that can't be meant: a class, an async def, a name that is spelt almost like one of these.

    - on_open(connection): a client has come. Returning False refuses it.
    - on_data(connection, data): bytes have arrived, part of a message or several; one frame after
      connection.set_frame_until(), set_frame_exactly() or set_frame_at_least().
    - on_end(connection): the peer has ended its direction. By default, connection.close().
    - on_drain(connection): what was queued had risen above high_water and has fallen to low_water.
    - on_post(connection, value): connection.post(value) was called.
    - on_timeout(connection, which): a timeout, "idle", "read" or "write", is over, and the connection
      ends when this returns, unless it calls connection.restart_timeouts(), sets a timeout, or says its
      last words and calls connection.close().
    - on_timer(connection): the time of connection.set_timer() has passed; a heartbeat sets it again here.
    - on_stop(connection): the server has begun to stop; one that is idle is best closed here.
    - on_close(connection, error): the last call for it, exactly one. error: None when it ended
      cleanly, else an OSError: ConnectionResetError, TimeoutError, ConnectionAbortedError after an
      abort, ECANCELED when the drain was over, or what the system said.
    - on_datagram(datagram, data): a datagram has arrived on a "udp:" address.
    - on_datagram_error(socket, error): a datagram that was sent from this DatagramSocket is lost, and
      the OSError says why: ConnectionRefusedError or another that the network gives of a connected
      socket's, or what the system said of one that had to wait.

    - on_worker_start(worker): a Worker begins, in its own thread or process: the loop of "reactor", each
      of "cores", each process of "prefork", that of each client under "thread" and "fork". The place
      for what each needs of its own, such as timers on worker.poller. An exception ends the server,
      and run() raises it; an OSError instead when it was raised in another process.
    - on_worker_end(worker): it ends there, when all its connections have.
    - on_event(worker, event): an Event of what the program has added to worker.poller.

    Calls for one connection never overlap. An exception in one goes to logging.getLogger("omnipoll")
    with its traceback and ends that connection, and nothing else.

    address: one to listen on, or a sequence of several: "127.0.0.1:8080", "[::1]:8080",
    "localhost:8080", ":8080" or "*:8080" (every address of this machine), "unix:/path",
    "unix:@abstract", "fd:3" (a socket that was inherited), "systemd" (all that systemd has passed),
    "systemd:web" (those of that name),
    "udp:127.0.0.1:53" (datagrams). Port 0 lets the system choose: see addresses.

    model: "reactor" (one loop for all), "cores" (a loop for each core, in threads), "thread" (a
    thread for each client), "fork" (a process for each client), "prefork" (a fixed set of processes,
    each replaced when it dies). Processes share no memory: what a handler changes in one is not
    seen in another. Threads take turns with Python's code, and run at once in system calls.

    engine: "select", "poll", "epoll", "io_uring" or "auto". workers: how many loops or processes
    "cores" and "prefork" have; None is one for each core. max_clients: how many are served at once, while the
    others wait to be accepted; None is 512 for "thread" and "fork", else no limit. backlog: how many
    may wait. reuse_port: whether each worker has a listening socket of its own (SO_REUSEPORT); None
    is yes for "cores", no for "prefork".

    queue_limit, total_queue_limit: how many bytes may wait to be sent on a connection, and in the
    whole process; a write beyond raises OSError (ENOBUFS). high_water, low_water: above the high
    mark, nothing is read from the connection until the low one is reached.

    idle_timeout, read_timeout, write_timeout: seconds after which a silent connection is ended, and
    one that takes nothing of what waits for it; None is never. linger: the seconds a closed
    connection gives its peer to read the rest. wait_policy: what a wait of its loops does before it sleeps,
    "balanced", ("latency", seconds) or ("thrifty", seconds), as Poller has it.

    proxy_header: the seconds in which each client must begin with a header of the PROXY protocol, version
    1 or 2; None expects none. on_open is called when it is complete, and the connection's peer and local are
    the addresses that it has, or else the socket's own. A client whose header is malformed or late is reset,
    and counted in refused_header. Let only proxies connect to such a server: it believes them.

    allow, deny: from which networks clients are accepted, "10.0.0.0/8, 2001:db8::/32, 192.0.2.1", and from
    which none are. max_address_clients: how many connections each address may have at once, over all workers
    and processes; an IPv6 address counts by its first 64 bits. max_address_rate: how many new ones a second.
    Others are reset before on_open, and counted in refused_filter, refused_address and refused_rate.
    max_receive_rate: how many bytes a second are read from each client, on average; its writes wait then.

    Each worker's sockets have these options; inherited ones keep their own. keep_alive: (idle, interval,
    count), the seconds after which the system asks a silent client, asks again, and how often before it ends
    the connection. no_delay: whether small writes are sent at once (TCP_NODELAY). receive_buffer,
    send_buffer: bytes (SO_RCVBUF, SO_SNDBUF). defer_accept: the seconds for which a client that has sent
    nothing is not reported; fast_open: how many may send data in their first packet; free_bind: an
    address need not be there yet; transparent: any address that is routed here (all four Linux's).
    multicast: the groups of "udp:" addresses, "239.1.2.3, ff02::fb%eth0". unix_mode, unix_owner: of a
    unix socket's file, the permissions and (user, group), None as it is. pin_workers: each worker of
    "cores" and "prefork" stays on a processor.

    signals: whether SIGTERM and SIGINT stop the server, a second one at once. drain: the seconds
    clients have to finish then, and after a with block; None is as long as they like. notify: whether the
    service manager is notified, where NOTIFY_SOCKET says that there is one: READY=1 when
    every worker serves, STOPPING=1, and WATCHDOG=1 at half of WATCHDOG_USEC (Type=notify of systemd).

    restart: whether restart() and, with signals, SIGHUP have a new process replace this one: True for the
    same command again, or the program and its arguments. restart_timeout: the seconds it has until it
    serves; after them it is killed. on_restart: called with the outcome, in the thread of run(): the new
    process's number and None, or None and the OSError for which this server goes on: BrokenPipeError, it
    has ended before it served; TimeoutError; ECANCELED, this server was stopped meanwhile; or what
    posix_spawn(3) says. Under "cores" the loops share their listening sockets then.

    clients_per_worker, clients_jitter: after how many clients a worker of "prefork" is replaced by another
    one, which serves before the old one stops accepting, and up to how many more; None is no limit.
    hang_timeout: the seconds after which a worker of "prefork" whose loop does not turn is killed and
    replaced; None is never.

    run() serves in the calling thread, start() and run_once() do so step by step. As a context manager it
    serves in a thread of its own, and stops at the end of the block.

    >>> import omnipoll, socket
    >>> class Shout:
    ...     def on_data(self, connection, data):
    ...         connection.write(data.upper())
    >>> with omnipoll.Server(Shout(), "127.0.0.1:0") as server:
    ...     host, port = server.addresses[0].split(":")
    ...     with socket.create_connection((host, int(port))) as client:
    ...         _ = client.send(b"hello")
    ...         print(client.recv(100))
    b'HELLO'
    """

    _thread: threading.Thread | None = None
    _raised: BaseException | None = None

    def run(self) -> None:
        """Serves until stop() is called and every client has gone. A server runs once.

        Other threads run meanwhile. In the main thread, handlers of signals run as usual: a
        KeyboardInterrupt stops the server at once and comes out of run(), as SystemExit does and every
        other BaseException that is no Exception, wherever in the handler it was raised; in a process
        that "fork" or "prefork" has forked it ends that process alone, and in one that a handler has
        forked, that one, at once (os._exit).

        Warns (RuntimeWarning) under "fork" and "prefork" when the program has other threads: a forked
        child has only the thread that forked, and what another had locked stays locked in it. Raises
        ValueError the second time, OSError as the system says.
        """
        if self.model in FORKING and threading.active_count() > 1:
            words = f'"{self.model}" forks, and this process has other threads: a child may find locks held'
            warnings.warn(words, RuntimeWarning, stacklevel=2)
        super().run()

    def __enter__(self) -> Self:
        """Begins to serve in a thread, once. The block that began it ends it.

        Raises RuntimeError the second time, and
        under "fork" and "prefork": a forked child has only the thread that
        forked, so these belong in the main thread, by run().
        """
        if self.model in FORKING:
            raise RuntimeError(
                f'"{self.model}" forks, which a program should do while it has one thread: call run()'
            )
        if self._thread is not None:
            raise RuntimeError("a server runs once: this one was in a with block before")
        self._thread = threading.Thread(target=self._serve, name="omnipoll")
        self._thread.start()
        return self

    def _serve(self) -> None:
        try:
            self.run()
        except BaseException as raised:  # It comes out of the with block.
            self._raised = raised

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stops, as drain allows, and raises what run() has raised."""
        self.stop(self.drain)
        assert self._thread is not None
        self._thread.join()
        if self._raised is not None:
            raise self._raised


def serve(
    handler: _native._Handler, address: str | Sequence[str], **options: Unpack[_native._Options]
) -> None:
    """Serves on address until SIGTERM or SIGINT comes: `Server(handler, address, **options).run()`.

    options: as `Server` takes them, with signals=True by default.
    """
    options.setdefault("signals", True)
    Server(handler, address, **options).run()
