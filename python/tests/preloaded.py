"""C libraries that tests put into a program of Python's."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def compile_library(name: str, folder: Path) -> Path:
    """Builds the library of a C file of this folder, and returns its path."""
    library = folder / f"{name}.so"
    source = HERE / f"{name}.c"
    warnings = ("-Wall", "-Wextra", "-Werror")
    subprocess.run(
        ["cc", "-shared", "-fPIC", *warnings, "-o", library, source, "-ldl", "-lpthread"], check=True
    )
    return library
