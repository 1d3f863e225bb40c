"""The machines that the Kotlin tests run on: this one's JVM, and an arm64 JVM under QEMU.

Both load the app's own JNI libraries, built from `android_demo/molkv/src/main/cpp`, and ONNX
Runtime's official Android libraries (`bionic_library.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.devices.android.bionic_library import BIONIC, build_bionic, copy_for_glibc
from tests.devices.android.toolchain import (
    DEMO,
    JAVA_HEADERS,
    JAVA_OPTIONS,
    classpath,
    digest_of,
    locked,
    onnxruntime_aar,
)
from tests.native.builds import ARM64_TOOLCHAIN, CMAKE, NINJA, run_politely

CPP: Final = DEMO / "molkv" / "src" / "main" / "cpp"
ONNXRUNTIME: Final = ("libonnxruntime.so", "libonnxruntime4j_jni.so")
_OURS: Final = ("libmolkv_jni.so", "native/onnxruntime/libmolkv_ort.so")
# What the kernel would say of such a processor; QEMU 7 shows the machine's own.
_PROCESSOR: Final = {
    "proc/cpuinfo": "".join(
        f"processor\t: {number}\nBogoMIPS\t: 50.00\n"
        "Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
        "CPU part\t: 0xd0b\nCPU revision\t: 0\n\n"
        for number in (0, 1)
    ),
    "sys/devices/system/cpu/possible": "0-1\n",
    "sys/devices/system/cpu/present": "0-1\n",
}


@dataclass(frozen=True)
class Machine:
    """A JVM of one ABI.

    Attributes:
        abi: Android's name of the processor.
        java: the command that starts it.
        libraries: the folder of all native libraries.
    """

    abi: str
    java: tuple[str, ...]
    libraries: Path

    def run(
        self, jars: list[Path], *arguments: str, seconds: int = 600
    ) -> subprocess.CompletedProcess[str]:
        """Runs a Java program; its exit status is the caller's to judge."""
        command = [
            *(*self.java, *JAVA_OPTIONS, "-Xss1m"),
            # A heap that does not grow: what else grows would be a leak.
            *("-Xms192m", "-Xmx192m", "-XX:+AlwaysPreTouch"),
            *("-Djava.library.path=" + str(self.libraries), "-Dfile.encoding=UTF-8"),
            *("-Donnxruntime.native.path=" + str(self.libraries), "-Xcheck:jni"),
            *("--add-opens=java.base/java.io=ALL-UNNAMED", "-cp", classpath(jars), *arguments),
        ]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries),
            "MALLOC_ARENA_MAX": "2",  # as many as threads would hide a leak, too
        }
        return subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )

    def junit(self, jars: list[Path], files: Path, name: str, *properties: str) -> int:
        """Runs a class of JUnit tests, all of which must pass, and returns how many there were."""
        files_property = f"-Dmolkv.test.files={files}"
        finished = self.run(jars, files_property, *properties, "org.junit.runner.JUnitCore", name)
        passed = re.search(r"^OK \((\d+) tests?\)$", finished.stdout, re.MULTILINE)
        assert passed, finished.stdout[-8000:]
        assert "WARNING in native method" not in finished.stdout, finished.stdout[-8000:]
        return int(passed[1])


def host() -> Machine:
    """This machine, x86-64."""
    return Machine("x86_64", ("java",), _libraries("x86_64", "gcc", ()))


def emulated_arm64() -> Machine:
    """A 64-bit ARM processor with everything, under QEMU."""
    toolchain = (f"-DCMAKE_TOOLCHAIN_FILE={ARM64_TOOLCHAIN}",)
    libraries = _libraries("arm64-v8a", "aarch64-linux-gnu-gcc", toolchain)
    system = _arm64_system()
    homes = system.glob("usr/lib/jvm/java-*-openjdk-arm64")
    (java,) = (home / "bin" / "java" for home in homes if not home.is_symlink())
    emulator = ("qemu-aarch64-static", "-cpu", "max", "-L", str(system))
    return Machine("arm64-v8a", (*emulator, str(java)), libraries)


def _libraries(abi: str, compiler: str, options: tuple[str, ...]) -> Path:
    with locked(f"jni-{abi}") as build:
        if not (build / "build.ninja").exists():
            run_politely(
                *(CMAKE, "-S", CPP, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"),
                # Quick to compile; what is tested is what it computes.
                *("-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DMOLKV_WERROR=ON"),
                *(f"-DMOLKV_JAVA_HEADERS={JAVA_HEADERS}", *options),
            )
        targets = ("--target", "molkv_jni", "molkv_ort")
        run_politely(CMAKE, "--build", build, "--parallel", "2", *targets)
        sources = [*(build / name for name in _OURS), BIONIC]
        folder = build / f"libraries-{digest_of(sources)}"
        # Never written in place: another worker may be running them.
        if not folder.exists():
            partial = build / "libraries.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name in _OURS:
                shutil.copy2(build / name, partial)
            build_bionic(partial, compiler)
            for name in ONNXRUNTIME:
                copy_for_glibc(onnxruntime_aar() / "jni" / abi / name, partial / name)
            partial.rename(folder)
        return folder


def _arm64_system() -> Path:
    """Debian for 64-bit ARM with a Java runtime, unpacked and never booted."""
    with locked("arm64-system") as system:
        if not system.exists():
            partial = system.with_name("arm64-system.partial")
            shutil.rmtree(partial, ignore_errors=True)
            release = Path("/etc/os-release").read_text()
            (codename,) = re.findall(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
            packages = "default-jre-headless,libstdc++6,libc6,zlib1g"
            subprocess.run(
                [
                    *("mmdebstrap", "--quiet", "--mode=root", "--arch=arm64"),
                    *("--variant=extract", f"--include={packages}", codename, str(partial)),
                    *map(str, _package_sources()),
                ],
                check=True,
            )
            for name, content in _PROCESSOR.items():
                file = partial / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content)
            partial.rename(system)
        return system


def _package_sources() -> list[Path]:
    """Where this machine's own packages come from."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    return [file for file in files if file.is_file() and file.suffix in (".list", ".sources")]
