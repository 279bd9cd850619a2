"""What is published, as whoever installs it meets it: the crate, the sdist, the Debian packages.

Everything is built under target/packages and used from there: nothing is installed on the machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import unittest
from functools import cache
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
BUILT = TREE / "target" / "packages"
BIN = TREE / ".venv" / "bin"
VERSION = re.findall(r'^version = "(.*)"', (TREE / "Cargo.toml").read_text(), re.M)[0]

SERVES = """
import socket, threading, omnipoll
class Shout:
    def on_data(self, connection, data):
        connection.write(data.upper())
server = omnipoll.Server(Shout(), "127.0.0.1:0")
thread = threading.Thread(target=server.run)
thread.start()
host, port = server.addresses[0].rsplit(":", 1)
with socket.create_connection((host, int(port)), 60) as client:
    client.sendall(b"packaged")
    print(client.recv(100).decode())
server.stop()
thread.join(60)
async def main():
    return "asyncio"
print(omnipoll.run(main()))
"""


def run(*command: str | Path, **environment: str) -> str:
    """Runs a command in the tree, which must succeed, and returns what it printed."""
    words = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment}
    done = subprocess.run(command, cwd=TREE, env=words, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def empty(name: str) -> Path:
    folder = BUILT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def import_and_serve(python: str | Path, **environment: str) -> str:
    """What a program prints that uses the installed package, from a folder without the sources."""
    return run("sh", "-c", 'cd / && exec "$0" -c "$1"', python, SERVES, **environment)


class Crates(unittest.TestCase):
    def test_the_crate_is_packaged(self) -> None:
        run("cargo", "package", "--quiet", "--allow-dirty", "--no-verify", "-p", "omnipoll")
        with tarfile.open(TREE / "target" / "package" / f"omnipoll-{VERSION}.crate") as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in ("README.md", "LICENSE-APACHE", "LICENSE-MIT", "build.rs", "src/lib.rs"):
            self.assertIn(name, names)
        self.assertFalse([name for name in names if name.startswith("tests/")])

    def test_what_crates_io_asks_for_is_there(self) -> None:
        packages = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))["packages"]
        published = [package for package in packages if package["publish"] != []]
        self.assertEqual([package["name"] for package in published], ["omnipoll"])
        for field in ("description", "license", "repository", "readme", "keywords", "categories"):
            self.assertTrue(published[0][field], field)

    def test_cargo_c_makes_the_same_library(self) -> None:
        """cargo-c itself takes minutes to build: what it reads is compared with `make install`."""
        packages = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))["packages"]
        (capi,) = (package for package in packages if package["name"] == "omnipoll-capi")
        for_cargo_c = capi["metadata"]["capi"]
        self.assertIn("capi", capi["features"])
        self.assertEqual(for_cargo_c["library"], {"name": "omnipoll", "version_suffix_components": 1})
        self.assertEqual(for_cargo_c["pkg_config"]["filename"], "omnipoll")
        self.assertFalse(for_cargo_c["header"]["generation"])
        for asset in for_cargo_c["install"]["include"]["asset"]:
            self.assertTrue((Path(capi["manifest_path"]).parent / asset["from"]).is_file(), asset)


class Sources(unittest.TestCase):
    def test_the_sdist_has_what_a_wheel_is_built_from(self) -> None:
        folder = empty("sdist")
        run("sh", "-c", 'cd python && exec maturin sdist --out "$0"', folder)
        (sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        package = {"LICENSE-APACHE", "LICENSE-MIT", "PKG-INFO", "pyproject.toml", "omnipoll/py.typed"}
        crates = {f"crates/{name}/src/lib.rs" for name in ("omnipoll", "omnipoll-python")}
        self.assertLessEqual(package | crates | {"Cargo.lock"}, names)


@cache
def debian() -> Path:
    """A folder into which the Debian packages are unpacked, as dpkg would unpack them into /."""
    run("make", "deb")
    root = empty("debian")
    packages = sorted((TREE / "target" / "deb").glob("*.deb"))
    for package in packages:
        run("dpkg-deb", "-x", package, root)
    return root


class Debian(unittest.TestCase):
    def test_there_are_three_packages(self) -> None:
        debian()
        found = {}
        for package in (TREE / "target" / "deb").glob("*.deb"):
            lines = run("dpkg-deb", "-f", package).splitlines()
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(" "))
            self.assertEqual(fields["Version"], VERSION)
            found[fields["Package"]] = fields["Depends"]
        self.assertEqual(set(found), {"libomnipoll0", "libomnipoll-dev", "python3-omnipoll"})
        self.assertEqual(found["libomnipoll-dev"], f"libomnipoll0 (= {VERSION})")

    def test_a_c_program_is_built_and_run_with_the_packages(self) -> None:
        root = debian()
        (config,) = root.glob("usr/lib/*/pkgconfig/omnipoll.pc")
        sysroot = {"PKG_CONFIG_LIBDIR": str(config.parent), "PKG_CONFIG_SYSROOT_DIR": str(root)}
        flags = run("pkg-config", "--cflags", "--libs", "omnipoll", **sysroot).split()
        program = root / "program"
        run("cc", "-o", program, "crates/omnipoll-capi/tests/c/installed.c", *flags)
        printed = run(program, LD_LIBRARY_PATH=str(config.parent.parent))
        self.assertEqual(printed, f"omnipoll {VERSION}: ready\n")

    def test_the_manual_and_the_licences_are_where_debian_has_them(self) -> None:
        root = debian()
        self.assertTrue((root / "usr/share/man/man3/omni_poller_wait.3.gz").is_file())
        for package in ("libomnipoll0", "libomnipoll-dev", "python3-omnipoll"):
            self.assertIn("Apache", (root / "usr/share/doc" / package / "copyright").read_text())

    def test_the_python_package_serves(self) -> None:
        folder = str(debian() / "usr/lib/python3/dist-packages")
        self.assertEqual(import_and_serve(sys.executable, PYTHONPATH=folder), "PACKAGED\nasyncio\n")


if __name__ == "__main__":
    unittest.main()
