"""The Kotlin library computes what Python computes, on this machine and on emulated arm64.

Both with the app's own JNI library and the libraries of ONNX Runtime's official Android package.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.devices.android.library import TESTS, number_of_tests
from tests.devices.android.toolchain import onnxruntime_aar, versions

if TYPE_CHECKING:
    from tests.devices.android.app import App
    from tests.devices.android.machines import Machine

# Of the package of an app: tests/devices/android/test_apk.py runs them.
PACKAGED = {"AssetTest"}
CLASSES = sorted({file.stem for file in (TESTS / "ai" / "molkv").glob("*Test.kt")} - PACKAGED)

# Of opening, generating and closing.
ROUNDS = 200


def test_the_suite_is_all_there() -> None:
    assert CLASSES == [
        "CancellationTest",
        "DescriptorTest",
        "GenerationTest",
        "HostileBundleTest",
        "ParityTest",
        "ResourceTest",
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_every_kotlin_test_passes(machine: Machine, app: App, payloads: Path, name: str) -> None:
    jars = [*app.library.jars, app.android]
    rounds = f"-Dmolkv.test.rounds={ROUNDS}"
    assert machine.junit(jars, payloads, f"ai.molkv.{name}", rounds) == number_of_tests(name) > 0


def test_the_jni_library_is_ready_for_large_pages_and_exports_one_name(machine: Machine) -> None:
    for name in ("libmolkv_jni.so", "libmolkv_ort.so"):
        listing = subprocess.run(
            ["readelf", "--segments", "--wide", machine.libraries / name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        loads = [line.split() for line in listing.splitlines() if line.split()[:1] == ["LOAD"]]
        assert loads
        assert all(int(fields[-1], 16) == 16 << 10 for fields in loads), name
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", machine.libraries / "libmolkv_jni.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[2::3]
    ours = [name for name in exported if not name.startswith("_Z")]
    assert ours == ["JNI_OnLoad"]


def test_onnxruntime_is_the_catalogues() -> None:
    version = versions()["onnxruntime"].encode()
    for abi in ("arm64-v8a", "x86_64"):
        assert (
            b"VERS_" + version
            in (onnxruntime_aar() / "jni" / abi / "libonnxruntime.so").read_bytes()
        )
