"""Builds the Swift package once for all workers, and the bundles that its tests run on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnxruntime
import pytest
from filelock import FileLock

from molkv_runtime.native.library import operator_library
from tests.devices.ios.swift_files import write_swift_files
from tests.devices.ios.swift_toolchain import (
    BUILD,
    REPOSITORY,
    ROOT,
    SwiftToolchain,
    make_swift_toolchain,
)

DEMO = ROOT / "ios_demo"
PACKAGE = REPOSITORY / "ios_demo"
# Neither optimized nor with debug information: what takes time in the tests is ONNX Runtime and the
# Python packages' operator, and compiling takes longer than all the tests.
BUILD_OPTIONS = (
    *("--package-path", str(PACKAGE), "--scratch-path", str(BUILD), "--jobs", "2"),
    *("-Xcxx", "-g0", "-Xswiftc", "-gnone", "-Xlinker", "--allow-shlib-undefined"),
)


@pytest.fixture(scope="session")
def ios_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is the same for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ios"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def swift_files(ios_folder: Path) -> Path:
    """What the Swift tests read; see Fixtures.swift."""
    folder = ios_folder / "files"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = ios_folder / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            write_swift_files(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def swift(ios_folder: Path) -> SwiftToolchain:
    """Swift, which sees the test files and the Python packages' native libraries."""
    toolchain = make_swift_toolchain()
    libraries = (Path(onnxruntime.__file__).parent / "capi", operator_library().parent)
    return SwiftToolchain(toolchain.chroot, toolchain.build, (ios_folder, *libraries))


@pytest.fixture(scope="session")
def swift_package(swift: SwiftToolchain, ios_folder: Path) -> SwiftToolchain:
    """The same with the package and its tests built."""
    with FileLock(ios_folder / "build.lock"):
        swift.done("swift", "build", "--build-tests", *BUILD_OPTIONS)
    return swift
