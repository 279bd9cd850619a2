#!/usr/bin/env python3
"""Makes a virtual environment: .ci/environment.py FOLDER ARGUMENTS-OF-PIP-INSTALL...

Debian splits ensurepip off into the package python3-venv. Where it is missing, pip is fetched
from PyPI, by address and hash, so that nothing has to be installed on the system.
"""

import hashlib
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

PIP = "pip-25.3-py3-none-any.whl"
PIP_URL = (
    "https://files.pythonhosted.org/packages/44/3c/"
    "d717024885424591d5376220b5e836c2d5293ce2011523c9de23ff7bf068/" + PIP
)
PIP_SHA256 = "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd"
QUIET = ("--quiet", "--disable-pip-version-check")


def has_ensurepip() -> bool:
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return False
    return True


def fetch_pip(python: Path) -> None:
    with urllib.request.urlopen(PIP_URL, timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        sys.exit(f"{PIP_URL} is not the file it should be")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PIP
        path.write_bytes(wheel)
        # A wheel is an archive that Python can run from; pip installs itself.
        subprocess.run([python, path / "pip", "install", *QUIET, path], check=True)


def main(folder: str, *what: str) -> int:
    if sys.version_info < (3, 9):  # noqa: UP036 (it is here to say so)
        sys.exit(f"python3 is {sys.version.split()[0]}; omnipoll needs 3.9 or later")
    python = Path(folder) / "bin" / "python"
    venv.create(folder, clear=True, symlinks=True, with_pip=has_ensurepip())
    if not has_ensurepip():
        fetch_pip(python)
    return subprocess.run([python, "-m", "pip", "install", *QUIET, *what]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
