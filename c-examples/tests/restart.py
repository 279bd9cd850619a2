"""restart.c: a server that replaces itself."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients import (
    connect,
    receive_line,
)
from tests.servers import STEP_SECONDS, Server, wait_until


class Restart:
    def test_no_client_is_refused_while_servers_replace_each_other(self):
        env = {"OMNIPOLL_ENGINE": self.engine}
        with Server(self.command, env=env) as server, ThreadPoolExecutor() as pool:
            stays, enough = self.connect(server), threading.Event()
            first = self.answer(stays)
            clients = [pool.submit(self.keep_coming, server, enough) for _ in range(4)]
            served_by = [first]
            try:
                for _ in range(3):
                    os.kill(served_by[-1], signal.SIGHUP)
                    served_by.append(self.next_one(server.port, served_by))
                # The first serves its clients without a time limit.
                self.assertEqual(self.answer(stays), first)
            finally:
                enough.set()
            answers = [client.result(STEP_SECONDS) for client in clients]  # raises what a client met
            self.assertTrue(all(answers), answers)
            print(f"{self.engine}: {sum(answers)} clients, none refused")
            stays.close()
            self.assertEqual(server.ended(), 0, server.stderr())
            self.end(server, served_by[-1])

    def test_a_program_that_was_replaced_is_what_starts(self):
        with self.serving() as server:
            first = self.newcomer(server.port)
            shutil.copy(self.command[0], self.program.with_suffix(".new"))
            self.program.with_suffix(".new").rename(self.program)
            os.kill(first, signal.SIGHUP)
            second = self.next_one(server.port, [first])
            self.assertTrue(self.program.samefile(f"/proc/{second}/exe"))
            self.assertEqual(server.ended(), 0, server.stderr())
            self.end(server, second)

    def test_a_program_that_can_not_be_started_replaces_nobody(self):
        with self.serving() as server, self.connect(server) as client:
            first = self.answer(client)
            self.program.unlink()
            os.kill(first, signal.SIGHUP)
            server.wait_until_said(f"restart: {self.program}: No such file or directory\n")
            self.goes_on(server, client)

    def test_a_program_that_ends_before_it_serves_replaces_nobody(self):
        with self.serving() as server, self.connect(server) as client:
            self.replace_program("echo its end >&2")
            for times in (1, 2):
                os.kill(self.answer(client), signal.SIGHUP)
                ended = "its end\nrestart: the new process has ended before it served\n"
                server.wait_until_said(ended * times)
                self.goes_on(server, client)

    def test_while_one_starts_no_other_does_and_a_stop_is_for_both(self):
        with self.serving() as server, self.connect(server) as client:
            gate = self.program.with_name("gate")
            os.mkfifo(gate)
            opened = os.open(gate, os.O_RDWR)  # closed in any case, which lets it pass
            self.addCleanup(os.close, opened)
            self.replace_program(f"echo starting >&2; read line <{gate}; exec {self.command[0]}")
            os.kill(self.answer(client), signal.SIGHUP)
            server.wait_until_said("starting\n")
            os.kill(self.answer(client), signal.SIGHUP)
            server.wait_until_said("restart: another process takes over already\n")
            self.goes_on(server, client)
            client.close()
            self.assertEqual(server.stop(), 0, server.stderr())
            self.assertFalse(self.is_refused(server.port), "no process has the socket open")
            os.write(opened, b"go\n")
            wait_until(lambda: self.is_refused(server.port), "the one that started ends")
            self.assertEqual(server.stderr().count("starting"), 1)

    def test_every_listening_socket_is_handed_on(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "socket")
            with self.serving("127.0.0.1:0", f"unix:{path}") as server:
                served_by = [self.newcomer(server.port)]
                for _ in range(2):
                    os.kill(served_by[-1], signal.SIGHUP)
                    served_by.append(self.next_one(server.port, served_by))
                    self.assertEqual(server.ended(), 0, server.stderr())
                    self.assertEqual(self.next_one(path, served_by[:-1]), served_by[-1])
                self.end(server, served_by[-1])

    def serving(self, *addresses):
        """A server whose program is a file of this test's."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.program = Path(shutil.copy(self.command[0], directory.name))
        return Server([str(self.program), *addresses], env={"OMNIPOLL_ENGINE": self.engine})

    def replace_program(self, script):
        self.program.unlink()
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def goes_on(self, server, client):
        """The first process serves, old clients and new ones."""
        self.assertEqual(self.answer(client), server.process.pid)
        self.assertEqual(self.newcomer(server.port), server.process.pid)

    def end(self, server, process):
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: self.is_refused(server.port), "the last one ends")

    def keep_coming(self, server, enough):
        """Comes and goes, and returns how often."""
        count = 0
        while not enough.is_set():
            self.newcomer(server.port)
            count += 1
        return count

    def next_one(self, address, before):
        """Comes until served by a process that was not there before."""
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            process = self.newcomer(address)
            if process not in before:
                return process
        raise AssertionError("no other process takes over")

    def newcomer(self, address):
        with contextlib.closing(connect(address)) as client:
            return self.answer(client)

    def answer(self, client):
        """The process that serves a client."""
        client.sendall(b"who?")
        return int(receive_line(client, b"\n"))

    def is_refused(self, port):
        with socket.socket() as late:
            return late.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
