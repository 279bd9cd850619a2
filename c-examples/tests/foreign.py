"""The echo server in other languages (ffi/)."""

import os
import shutil

from tests.building import HERE, LIB
from tests.clients import drive, echo_clients
from tests.echo import EchoServer
from tests.example import install
from tests.servers import Server


class ForeignEchoServer(EchoServer):
    def test_ends_after_so_many_clients(self):
        with Server([*self.command, "--clients", "10"]) as server:
            clients = echo_clients(server.port, count=10, sizes=[1, 300000], seed=5)
            drive(clients)
            for client in clients:
                self.assertEqual(client.received, client.data)
            self.assertEqual(server.ended(), 0, server.stderr())

    def setUp(self):
        super().setUp()
        missing = missing_for(self.program)
        if missing and os.environ.get("CI") == "true":
            self.fail(missing)
        if missing:
            self.skipTest(missing)
        os.environ["OMNIPOLL_LIBRARY"] = str(LIB / "libomnipoll.so.0")
        self.addCleanup(os.environ.pop, "OMNIPOLL_LIBRARY")


def missing_for(program):
    """Installs what a foreign program needs, and says what could not be had."""
    if shutil.which(program) is None or (program == "node" and shutil.which("npm") is None):
        packages = {"node": ["nodejs", "npm"]}.get(program, [program])
        if not install(["apt-get", "install", "-y", *packages]):
            return f"{program} is not here, and apt-get could not install it"
    koffi = HERE / "ffi" / "node_modules" / "koffi"
    if program == "node" and not koffi.is_dir() and not install(["npm", "install", "--no-package-lock"]):
        return "koffi is not here, and npm could not install it"
    return None
