"""Builds the app's classes against fakes of Android, and its resources with the real aapt2."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.devices.android.library import TESTS, Library, build_library, built
from tests.devices.android.toolchain import (
    DEMO,
    compile_kotlin,
    kotlin_sources,
    runtime_jars,
    test_jars,
    versions,
)

APP: Final = DEMO / "app" / "src" / "main"
RESOURCES: Final = APP / "res"
FRAMEWORK: Final = Path("/usr/share/android-framework-res/framework-res.apk")
_FAKES: Final = Path(__file__).with_name("fakes")
_JAVAC: Final = ("javac", "-nowarn", "-Xlint:-options", "--release", "8")


@dataclass(frozen=True)
class App:
    """Jars of the app: its classes, its tests, `R`, Android's fakes, and the library."""

    classes: Path
    tests: Path
    resources: Path
    android: Path
    library: Library

    @property
    def jars(self) -> list[Path]:
        """All that the app's tests are run with."""
        return [self.tests, self.classes, self.resources, self.android, *self.library.jars]


def android_fakes() -> Path:
    """A jar of the small part of `android.*` that the demo uses."""
    sources = sorted(_FAKES.rglob("*.java"))
    return built("android-fakes", sources, lambda jar: _compile_java(sources, jar, []))


def resource_classes() -> Path:
    """A jar of the classes `R`, as aapt2 makes them from the resources."""
    sources = [*sorted(RESOURCES.rglob("*.xml")), APP / "AndroidManifest.xml"]

    def make(jar: Path) -> None:
        generated = jar.with_suffix(".generated")
        link_resources(jar.with_suffix(".apk"), java=generated)
        _compile_java(sorted(generated.rglob("*.java")), jar, [])

    return built("app-resources", sources, make)


def build_app() -> App:
    """Compiles everything, once."""
    android, resources = android_fakes(), resource_classes()
    library = build_library(android)
    sources = kotlin_sources(APP / "kotlin")
    libraries = [library.library, *runtime_jars(), resources, android]
    classes = built(
        "app", [*sources, *libraries[:1]], lambda jar: compile_kotlin(sources, jar, libraries)
    )
    tests = kotlin_sources(TESTS / "ai" / "molkv" / "demo")
    test_jar = built(
        "app-tests",
        [*tests, classes, library.tests],
        lambda jar: compile_kotlin(
            tests,
            jar,
            [classes, library.tests, *libraries, *test_jars()],
            f"-Xfriend-paths={classes},{library.tests}",
        ),
    )
    return App(classes, test_jar, resources, android, library)


def link_resources(apk: Path, *, java: Path | None = None) -> None:
    """Writes an APK with the manifest and the resources, as Gradle's plugin would merge them."""
    work = apk.with_suffix(".resources")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    manifest = work / "AndroidManifest.xml"
    text = (APP / "AndroidManifest.xml").read_text()
    manifest.write_text(text.replace("<manifest ", f'<manifest package="{namespace("app")}" ', 1))
    compiled = work / "compiled.zip"
    subprocess.run(["aapt2", "compile", "--dir", RESOURCES, "-o", compiled], check=True)
    command = ["aapt2", "link", "-I", str(FRAMEWORK), "--manifest", str(manifest)]
    numbers = versions()
    command += ["--min-sdk-version", numbers["minSdk"], "--target-sdk-version"]
    command += [numbers["targetSdk"], "--version-code", "1", "--version-name", "0.1.0"]
    if java is not None:
        command += ["--java", str(java)]
    subprocess.run([*command, "-o", str(apk), str(compiled)], check=True)


def namespace(module: str) -> str:
    """The Java package of a module, from its build file."""
    (name,) = re.findall(r'^ *namespace = "(.+)"$', build_file(module), re.MULTILINE)
    return str(name)


def uncompressed() -> list[str]:
    """Endings of assets that must be stored as they are, from the app's build file."""
    (names,) = re.findall(r"noCompress \+= listOf\((.+)\)", build_file("app"))
    return re.findall(r'"(\w+)"', names)


def build_file(module: str) -> str:
    """A module's build.gradle.kts."""
    return (DEMO / module / "build.gradle.kts").read_text()


def _compile_java(sources: list[Path], jar: Path, libraries: list[Path]) -> None:
    classes = jar.with_suffix(".classes")
    shutil.rmtree(classes, ignore_errors=True)
    path = ["-cp", ":".join(map(str, libraries))] if libraries else []
    subprocess.run([*_JAVAC, *path, "-d", classes, *sources], check=True)
    subprocess.run(["jar", "--create", "--file", jar, "-C", classes, "."], check=True)
