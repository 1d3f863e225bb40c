"""Builds the native library once for all workers, and runs it on several processors."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.native.builds import NATIVE, Builds, Processor, emulated, make_emulator_prefix

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


@pytest.fixture(scope="session")
def arm64_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libonnxruntime.so for 64-bit ARM, of the version that is installed for this machine."""
    folder = tmp_path_factory.mktemp("arm64-onnxruntime")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", "--no-deps"),
            *("--dest", str(folder), f"onnxruntime=={version('onnxruntime')}"),
        ],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if "/libonnxruntime.so." in name)
        archive.extract(name, folder)
    wheel.unlink()
    return folder / name
