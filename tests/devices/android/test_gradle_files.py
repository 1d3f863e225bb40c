"""Gradle's files agree with each other, with CMake and with what the tests use."""

from __future__ import annotations

import re
import tomllib
import zipfile
from typing import Any

import pytest

from tests.devices.android.apk import PAGE
from tests.devices.android.app import APP, RESOURCES, build_file, namespace
from tests.devices.android.machines import CPP
from tests.devices.android.toolchain import DEMO, GSON, KEPT, ROOT, kotlin_folder, versions

MODULES = ("molkv", "app")
ABIS = ("arm64-v8a", "x86_64")
CMAKE = (CPP / "CMakeLists.txt").read_text()
NATIVE_CMAKE = (ROOT / "native" / "CMakeLists.txt").read_text()


def catalogue() -> dict[str, dict[str, Any]]:
    return tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text())


@pytest.mark.parametrize("module", MODULES)
def test_modules_take_every_version_from_the_catalogue(module: str) -> None:
    text = build_file(module)
    for name in ("minSdk", "compileSdk"):
        assert f"{name} = libs.versions.{name}.get().toInt()" in text
    assert "ndkVersion = libs.versions.ndk.get()" in text
    used = set(re.findall(r"libs\.(?!versions|plugins)(\w+)", text))
    assert used <= set(catalogue()["libraries"])
    assert not re.search(r'"[\w.]+:[\w-]+:[\d.]+"', text), "a dependency beside the catalogue"
    plugins = set(re.findall(r"libs\.plugins\.([\w.]+)\)", text))
    assert {name.replace(".", "-") for name in plugins} <= set(catalogue()["plugins"])


def test_the_catalogue_is_what_is_tested() -> None:
    numbers = versions()
    coroutines = kotlin_folder() / "kotlinx-coroutines-core-jvm.jar"
    with zipfile.ZipFile(coroutines) as jar:
        found = jar.read("META-INF/kotlinx_coroutines_core.version").decode()
    assert found == numbers["coroutines"]
    assert GSON.with_name(f"gson-{numbers['gson']}.jar").resolve() == GSON.resolve()
    assert int(numbers["minSdk"]) == 28
    assert int(numbers["minSdk"]) <= int(numbers["targetSdk"]) <= int(numbers["compileSdk"])
    for entry in catalogue()["libraries"].values():
        assert entry["version"]["ref"] in numbers


@pytest.mark.parametrize("module", MODULES)
def test_abis_are_those_that_run(module: str) -> None:
    (listed,) = re.findall(r"abiFilters \+= listOf\((.+)\)", build_file(module))
    assert tuple(re.findall(r'"(.+?)"', listed)) == ABIS


def test_cmake_builds_what_kotlin_loads() -> None:
    text = build_file("molkv")
    (path,) = re.findall(r'path = file\("(.+)"\)', text)
    assert (DEMO / "molkv" / path).resolve() == CPP / "CMakeLists.txt"
    (targets,) = re.findall(r"targets \+= listOf\((.+)\)", text)
    native = (DEMO / "molkv/src/main/kotlin/ai/molkv/internal/Native.kt").read_text()
    loaded = re.findall(r'System\.loadLibrary\("(\w+)"\)', native)
    assert re.findall(r'"(\w+)"', targets) == loaded == ["molkv_jni", "molkv_ort"]
    (needed,) = re.findall(r"cmake_minimum_required\(VERSION ([\d.]+)\)", CMAKE)
    assert versions()["cmake"].startswith(needed)
    assert needed in NATIVE_CMAKE
    # The one native core of the repository, not a copy.
    assert "add_subdirectory(${MOLKV_NATIVE} native)" in CMAKE
    assert not list(DEMO.rglob("molkv.h"))


def test_libraries_are_linked_for_pages_of_16_kib() -> None:
    assert f"max-page-size={PAGE}" in CMAKE
    assert f"max-page-size={PAGE}" in NATIVE_CMAKE
    assert "useLegacyPackaging = false" in build_file("app")
    major, minor = (int(part) for part in versions()["agp"].split(".")[:2])
    assert (major, minor) >= (8, 6), "older plugins align libraries in the APK to 4 KiB"


def test_abi_version_and_class_names_are_those_of_native_code() -> None:
    header = (ROOT / "native/include/molkv/molkv.h").read_text()
    (version,) = re.findall(r"#define MOLKV_ABI_VERSION (\d+)", header)
    native = (DEMO / "molkv/src/main/kotlin/ai/molkv/internal/Native.kt").read_text()
    assert f"ABI_VERSION = {version}\n" in native
    rules = (DEMO / "molkv/consumer-rules.pro").read_text()
    assert "consumer-rules.pro" in build_file("molkv")
    for file in CPP.glob("*.cc"):
        for name in re.findall(r'FindClass\("([\w/]+)"\)', file.read_text()):
            assert f"-keep class {name.replace('/', '.')} " in rules


def test_kotlin_declares_what_c_registers() -> None:
    sources = "".join(file.read_text() for file in sorted(CPP.glob("*.cc")))
    registered = set(re.findall(r'Method\(\s*"(\w+)"', sources))
    native = (DEMO / "molkv/src/main/kotlin/ai/molkv/internal/Native.kt").read_text()
    assert registered == set(re.findall(r"external fun (\w+)\(", native))


def test_the_app_manifest_names_classes_that_exist_and_no_permission() -> None:
    manifest = (APP / "AndroidManifest.xml").read_text()
    assert "uses-permission" not in manifest
    package = namespace("app").replace(".", "/")
    for name in re.findall(r'android:name="\.(\w+)"', manifest):
        assert (APP / "kotlin" / package / f"{name}.kt").exists()


def test_light_and_dark_themes_and_texts_in_one_place() -> None:
    for folder in ("values", "values-night"):
        assert "Theme.Material" in (RESOURCES / folder / "themes.xml").read_text()
    for layout in (RESOURCES / "layout").glob("*.xml"):
        text = layout.read_text()
        assert not re.search(r'android:(text|hint|contentDescription)="(?!@string/)', text)
        # Sizes in dp would not follow the user's font size.
        assert "textSize" not in text
        assert "<ScrollView" in text


def test_only_the_apps_own_folders_are_ignored() -> None:
    ignored = (DEMO / ".gitignore").read_text()
    assert "app/src/main/assets/bundle/" in ignored
    assert KEPT.is_relative_to(ROOT / "build")
