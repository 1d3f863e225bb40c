"""The Swift package of ios_demo/, built and tested with a real Swift toolchain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from molkv_runtime.native.library import operator_library
from tests.devices.ios.conftest import BUILD_OPTIONS, DEMO, PACKAGE
from tests.devices.ios.core_ml_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.devices.ios.swift_toolchain import SwiftToolchain


def suites() -> dict[str, int]:
    """Every test class of the package, as Module.Class, with the number of its tests."""
    found = {}
    for file in sorted((DEMO / "Tests").glob("*/*.swift")):
        source = file.read_text(encoding="utf-8")
        (name,) = re.findall(r"^final class (\w+): XCTestCase", source, re.MULTILINE)
        tests = re.findall(r"^  func test\w+\(", source, re.MULTILINE)
        found[f"{file.parent.name}.{name}"] = len(tests)
    return found


@pytest.fixture(scope="module")
def core_ml_server(ios_folder: Path, worker_id: str) -> Iterator[Path]:
    """Where packages are described and evaluated in place of Core ML."""
    socket = ios_folder / f"core-ml-{worker_id}"
    with serving(socket):
        yield socket


def test_the_core_is_compiled_from_its_own_sources() -> None:
    link = DEMO / "native"
    assert link.is_symlink()
    assert str(link.readlink()) == "../native"


def test_swift_format_would_change_nothing(swift: SwiftToolchain) -> None:
    lint = ("swift-format", "lint", "--strict", "--recursive")
    places = ("Sources", "App", "Linux", "Tests", "Package.swift")
    assert swift.done("env", "-C", PACKAGE, *lint, *places) == ""


def test_swift_format_objects_to_bad_layout(swift: SwiftToolchain, ios_folder: Path) -> None:
    file = ios_folder / "Bad.swift"
    file.write_text("let  a=1\n")
    assert swift.run("swift-format", "lint", "--strict", file).returncode != 0


@pytest.mark.parametrize("suite", suites())
def test_swift_tests_pass(
    swift_package: SwiftToolchain, swift_files: Path, core_ml_server: Path, suite: str
) -> None:
    (runtime,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    environment = {
        "MOLKV_TEST_FILES": str(swift_files),
        "MOLKV_ONNXRUNTIME": str(runtime),
        "MOLKV_OPERATORS": str(operator_library()),
        "MOLKV_CORE_ML_SERVER": str(core_ml_server),
    }
    filtered = ("--skip-build", "--filter", rf"^{re.escape(suite)}/")
    result = swift_package.run("swift", "test", *BUILD_OPTIONS, *filtered, environment=environment)
    assert result.returncode == 0, result.stdout[-8000:]
    count = suites()[suite]
    assert f"Executed {count} test{'s' if count > 1 else ''}, with 0 failures" in result.stdout
