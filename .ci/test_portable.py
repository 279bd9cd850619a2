"""What is built for other machines than this one: the wheels that are published, as `make wheels` has built
them, and a C program with musl that needs nothing.

A wheel is for any Linux of its processor and C library, and for CPython 3.9 and every later version.
"""

from __future__ import annotations

import re
import subprocess
import unittest
import zipfile
from pathlib import Path

from test_packages import BIN, TREE, VERSION, empty, import_and_serve, run

BUILT = TREE / "target" / "wheels" / "release"
MACHINES = {"x86_64": "X86-64", "aarch64": "AArch64"}
GLIBC = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "libutil.so.1", "librt.so.1"}


def wheel(tag: str) -> Path:
    (found,) = BUILT.glob(f"omnipoll-{VERSION}-cp39-abi3-{tag}.whl")
    return found


def native_module(wheel: Path) -> Path:
    """The shared object of a wheel, unpacked."""
    folder = empty(f"wheels/{wheel.stem}")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("omnipoll/_native.abi3.so", folder))


class Wheels(unittest.TestCase):
    def test_there_is_one_for_each_processor_and_c_library(self) -> None:
        tags = {path.stem.partition("abi3-")[2] for path in BUILT.glob("*.whl")}
        libraries = ("manylinux2014_{0}.manylinux_2_17_{0}", "musllinux_1_2_{0}")
        self.assertEqual(tags, {library.format(machine) for library in libraries for machine in MACHINES})

    def test_each_is_of_its_processor_and_needs_nothing_but_the_c_library(self) -> None:
        for path in BUILT.glob("*.whl"):
            with self.subTest(path.name):
                module = native_module(path)
                machine = next(machine for name, machine in MACHINES.items() if name in path.name)
                self.assertIn(machine, run("readelf", "--file-header", module))
                dynamic = run("readelf", "--dynamic", "--version-info", "--wide", module)
                needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
                if "musl" in path.name:
                    self.assertEqual(needed, {"libc.so"})
                    continue
                self.assertLessEqual({name for name in needed if not name.startswith("ld-linux")}, GLIBC)
                minors = {int(minor) for minor in re.findall(r"\bGLIBC_2\.(\d+)", dynamic)}
                self.assertLessEqual(max(minors), 17)

    def test_that_of_this_machine_serves_on_every_interpreter(self) -> None:
        path = wheel("manylinux2014_x86_64.manylinux_2_17_x86_64")
        program = "import all_versions as v; print(*(i.path for i in v.interpreters() if not i.obstacle))"
        for python in run("python3", "-c", program, PYTHONPATH=str(TREE / "python" / "tests")).split():
            with self.subTest(python):
                self.assertEqual(self.installed(python, path), "PACKAGED\nasyncio\n")

    def test_the_sdist_builds(self) -> None:
        (sdist,) = BUILT.glob(f"omnipoll-{VERSION}.tar.gz")
        folder = empty("from-sdist")
        options = ("--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir")
        run(BIN / "python", "-m", "pip", "wheel", *options, folder, sdist)
        (built,) = folder.glob("*.whl")
        self.assertEqual(self.installed(str(BIN / "python"), built), "PACKAGED\nasyncio\n")

    def installed(self, python: str, wheel: Path) -> str:
        """What a program prints in an environment that has nothing but the wheel."""
        folder = empty("environment")
        run(python, "-m", "venv", "--without-pip", folder)
        (packages,) = folder.glob("lib/python3*/site-packages")
        subprocess.run([BIN / "python", "-m", "zipfile", "-e", wheel, packages], check=True)
        return import_and_serve(folder / "bin" / "python")


class Musl(unittest.TestCase):
    def test_the_recipe_of_the_guide_makes_a_program_that_needs_nothing(self) -> None:
        text = (TREE / "docs" / "install.md").read_text()
        recipe = text.partition("## One file that needs nothing")[2].split("```sh\n")[1].partition("```")[0]
        program = empty("musl") / "server"
        source = "crates/omnipoll-capi/tests/c/installed.c"
        run("sh", "-ec", recipe.replace("-o server server.c", f"-o {program} {source}"))
        self.assertEqual(run(program), f"omnipoll {VERSION}: ready\n")
        self.assertNotIn("NEEDED", run("readelf", "--dynamic", program))


if __name__ == "__main__":
    unittest.main()
