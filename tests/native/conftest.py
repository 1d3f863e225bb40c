"""Builds the native library once for all workers, and runs it on several processors."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

from tests.native.builds import NATIVE, Builds, Processor, emulated, make_emulator_prefix
from tests.native.torch_stand_in import CUSTOM_OPS

__all__ = ["NATIVE"]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that is the same for all workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def builds(shared_folder: Path) -> Builds:
    """Other builds than the plain one, each made on first use."""
    return Builds(shared_folder)


@pytest.fixture(scope="session")
def native_build(builds: Builds) -> Path:
    """The build folder of `native/`, with libmolkv.so, libmolkv_core.a and libmolkv_ort.so."""
    return builds.build("plain", "molkv", "molkv_core", "molkv_ort")


@pytest.fixture(scope="session")
def native_library(native_build: Path) -> Path:
    """libmolkv.so, built from this checkout."""
    return native_build / "libmolkv.so"


@pytest.fixture(scope="session")
def arm64_prefix(shared_folder: Path) -> Path:
    """What an emulated 64-bit ARM program sees as its system."""
    return make_emulator_prefix(shared_folder)


@pytest.fixture(params=["x86-64", "max", "cortex-a53"])
def processor(request: pytest.FixtureRequest) -> Processor:
    """This machine, a 64-bit ARM processor with everything, and one without dot products."""
    if request.param == "x86-64":
        return Processor("plain", "x86-64")
    return emulated(request.param, request.getfixturevalue("arm64_prefix"))


def unpack_arm64_wheel(package: str, folder: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Some files of a package for 64-bit ARM, of the version that is installed for this machine."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", "--no-deps"),
            *("--dest", str(folder), f"{package}=={version(package)}"),
        ],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if wanted(name)]
        archive.extractall(folder, names)
    wheel.unlink()
    return names


@pytest.fixture(scope="session")
def arm64_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libonnxruntime.so for 64-bit ARM."""
    folder = tmp_path_factory.mktemp("arm64-onnxruntime")
    (name,) = unpack_arm64_wheel("onnxruntime", folder, lambda name: "/libonnxruntime.so." in name)
    return folder / name


@pytest.fixture(scope="session")
def arm64_executorch(shared_folder: Path) -> Path:
    """ExecuTorch's C++ libraries, LLM operators, headers and CMake package for 64-bit ARM."""
    folder = shared_folder / "arm64-executorch"
    parts = tuple(f"executorch/{part}/" for part in ("include", "lib", "share", CUSTOM_OPS))
    # The build folder, which all workers share, remembers the path.
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            unpack_arm64_wheel("executorch", folder, lambda name: name.startswith(parts))
    return folder / "executorch"
