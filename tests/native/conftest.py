"""Builds the native library once for all workers."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"


def run_politely(*command: str | Path) -> None:
    """Compilers give way to whatever else the machine does."""
    subprocess.run(["nice", "-n", "15", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def native_build(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The build folder of `native/`, with libmolkv.so and libmolkv_core.a."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent
    build = folder / "native-build"
    with (folder / "native-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (build / "done").exists():
            generator = ["-G", "Ninja"] if shutil.which("ninja") else []
            run_politely("cmake", "-S", NATIVE, "-B", build, *generator)
            run_politely("cmake", "--build", build, "--parallel", "1")
            (build / "done").touch()
    return build


@pytest.fixture(scope="session")
def native_library(native_build: Path) -> Path:
    """libmolkv.so, built from this checkout."""
    return native_build / "libmolkv.so"
