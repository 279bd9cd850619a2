#!/usr/bin/env python3
"""Makes a virtual environment: .ci/environment.py FOLDER ARGUMENTS-OF-PIP-INSTALL...

Debian splits ensurepip, without which there is no pip, off into the package python3-venv.
"""

import subprocess
import sys
import venv
from pathlib import Path

QUIET = ("--quiet", "--disable-pip-version-check")


def main(folder: str, *what: str) -> int:
    if sys.version_info < (3, 9):  # noqa: UP036 (it is here to say so)
        sys.exit(f"python3 is {sys.version.split()[0]}; omnipoll needs 3.9 or later")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        sys.exit("python3 has no ensurepip: install it (Debian and Ubuntu: apt-get install python3-venv)")
    venv.create(folder, clear=True, symlinks=True, with_pip=True)
    python = Path(folder) / "bin" / "python"
    return subprocess.run([python, "-m", "pip", "install", *QUIET, *what]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
