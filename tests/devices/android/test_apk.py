"""An APK of the demo: assembled and verified."""

from __future__ import annotations

import re
import struct
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.devices.android.apk import PAGE, assemble, own_classes, own_libraries
from tests.devices.android.app import App, uncompressed
from tests.devices.android.library import number_of_tests
from tests.devices.android.machines import Machine, emulated_arm64, host
from tests.devices.android.toolchain import versions


@pytest.fixture(scope="session")
def apk(app: App, payloads: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "android-apk"
    with FileLock(f"{folder}.lock"):
        if not (folder / "demo.apk").exists():
            folder.mkdir()
            assemble(app, payloads / "bundles" / "tiny", [host(), emulated_arm64()], folder)
    return folder / "demo.apk"


@pytest.fixture(scope="session")
def payload(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Path]:
    """A machine with the APK's own native libraries, and a jar of its own classes."""
    folder = tmp_path_factory.mktemp("payload")
    jar, libraries = folder / "own.jar", folder / "libraries"
    own_classes(apk, jar)
    own_libraries(apk, host().abi, libraries)
    return replace(host(), libraries=libraries), jar


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_is_what_the_build_files_say(apk: Path) -> None:
    badging = output("aapt", "dump", "badging", apk)
    numbers = versions()
    assert "package: name='ai.molkv.demo'" in badging
    assert f"sdkVersion:'{numbers['minSdk']}'" in badging
    assert f"targetSdkVersion:'{numbers['targetSdk']}'" in badging
    assert "launchable-activity: name='ai.molkv.demo.MainActivity'" in badging
    (abis,) = re.findall(r"^native-code: (.+)$", badging, re.MULTILINE)
    assert set(abis.split()) == {"'arm64-v8a'", "'x86_64'"}
    assert "uses-permission" not in badging
    assert "Verifies" in output("apksigner", "verify", "--verbose", apk)


def test_its_dex_code_has_every_class_of_the_demo(apk: Path, app: App) -> None:
    listing = output("dexdump", apk)
    there = set(re.findall(r"Class descriptor *: 'L(ai/molkv/[^;]+);'", listing))
    for jar in (app.classes, app.library.library):
        with zipfile.ZipFile(jar) as content:
            names = {name[:-6] for name in content.namelist() if name.endswith(".class")}
        assert names <= there


def test_what_is_read_in_place_is_stored_as_it_is(apk: Path) -> None:
    with zipfile.ZipFile(apk) as content:
        entries = content.infolist()
    kept = [entry for entry in entries if entry.filename.split(".")[-1] in {*uncompressed(), "so"}]
    assert {Path(entry.filename).name for entry in kept} >= {
        "experts.molkv",
        "dense.onnx",
        "dense.onnx.data",
        "libonnxruntime.so",
        "libmolkv_jni.so",
    }
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in kept)
    libraries = [entry for entry in kept if entry.filename.endswith(".so")]
    assert len(libraries) == 2 * 4
    assert all(content_offset(apk, entry) % PAGE == 0 for entry in libraries)


@pytest.mark.parametrize("name", ["AssetTest", "ParityTest"])
def test_its_own_code_and_libraries_compute_what_python_computed(
    apk: Path, app: App, payloads: Path, payload: tuple[Machine, Path], name: str
) -> None:
    machine, classes = payload
    # Kotlin's and ONNX Runtime's classes as published: the APK lacks what only tests call.
    published = [jar for jar in app.library.jars if jar != app.library.library]
    jars = [classes, app.android, *published]
    passed = machine.junit(jars, payloads, f"ai.molkv.{name}", f"-Dmolkv.app.apk={apk}")
    assert passed == number_of_tests(name) > 0


def content_offset(apk: Path, entry: zipfile.ZipInfo) -> int:
    with apk.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return int(entry.header_offset + 30 + name + extra)
