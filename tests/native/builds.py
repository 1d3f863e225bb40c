"""Builds of native/, and how to run those for another processor."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "native"
ARM64_TOOLCHAIN = NATIVE / "cmake" / "aarch64-linux-gnu.cmake"
ARM64_LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
# Fast to compile, and fast enough to run with sanitizers.
_QUICK = ("-DCMAKE_CXX_FLAGS_RELEASE=-O1",)

# What each build is configured with, besides that warnings are errors and tests are built.
KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "executorch": _QUICK,
    "address": (
        *_QUICK,
        "-DCMAKE_CXX_COMPILER=clang++",
        "-DMOLKV_SANITIZE=address,undefined",
        "-DMOLKV_BUILD_FUZZERS=ON",
    ),
    "thread": (*_QUICK, "-DMOLKV_SANITIZE=thread"),
    "arm64": (f"-DCMAKE_TOOLCHAIN_FILE={ARM64_TOOLCHAIN}",),
}


def tool(name: str) -> str | None:
    """A program of the environment that runs the tests, or of the system."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


CMAKE = tool("cmake") or "cmake"
NINJA = tool("ninja")


def run_politely(*command: str | Path) -> None:
    """Compilers give way to whatever else the machine does."""
    finished = subprocess.run(
        ["nice", "-n", "15", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Ninja says on stdout what a compiler objects to.
    assert finished.returncode == 0, finished.stdout[-5000:]


@dataclass(frozen=True)
class Builds:
    """Build folders below `folder`, which all workers share."""

    folder: Path

    def build(self, kind: str, *targets: str, options: tuple[str, ...] = ()) -> Path:
        """The build folder of one of `KINDS`, in which `targets` are up to date.

        `options` are CMake's, such as -DMOLKV_BUILD_RUNNER=ON, and stay for later calls.
        """
        build = self.folder / f"native-{kind}"
        with (self.folder / f"native-{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            configured = build / "configured"
            known = configured.read_text().splitlines() if configured.exists() else None
            if known is None or not set(options) <= set(known):
                _configure(build, (*KINDS[kind], *options))
                configured.write_text("\n".join([*(known or []), *options]))
            run_politely(CMAKE, "--build", build, "--parallel", "2", "--target", *targets)
        return build


def _configure(build: Path, options: tuple[str, ...]) -> None:
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"] if NINJA else []
    always = ["-DMOLKV_WERROR=ON", "-DMOLKV_BUILD_TESTS=ON"]
    run_politely(CMAKE, "-S", NATIVE, "-B", build, *generator, *always, *options)


@dataclass(frozen=True)
class Processor:
    """A processor that programs of a build run on; `emulator` is empty for this machine's own."""

    kind: str
    name: str
    emulator: tuple[str, ...] = ()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a program of the build; its exit status is the caller's to judge."""
        return subprocess.run(
            ["nice", "-n", "5", *self.emulator, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )


def emulated(cpu: str, prefix: Path) -> Processor:
    """A 64-bit ARM processor as QEMU knows it: "max", or an old one such as "cortex-a53"."""
    emulator = ("qemu-aarch64-static", "-cpu", cpu, "-L", str(prefix))
    return Processor("arm64", f"arm64 {cpu}", emulator)


def make_emulator_prefix(folder: Path) -> Path:
    """Files that an emulated program sees before the machine's own.

    The C library of 64-bit ARM; and what the kernel would say of such a processor, because ONNX
    Runtime reads it and QEMU 7 shows the machine's own.
    """
    prefix = folder / "arm64-prefix"
    with (folder / "arm64-prefix.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not prefix.exists():
            _write_emulator_prefix(prefix)
    return prefix


def _write_emulator_prefix(prefix: Path) -> None:
    libraries = prefix / "lib"
    libraries.mkdir(parents=True)
    for library in ARM64_LIBRARIES.glob("*.so*"):
        shutil.copy2(library, libraries / library.name)
    files = {
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd crc32\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        "CPU part\t: 0xd03\nCPU revision\t: 0\n",
        "sys/devices/system/cpu/possible": "0-1\n",
        "sys/devices/system/cpu/present": "0-1\n",
    }
    for name, content in files.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@cache
def exported_names(library: Path) -> frozenset[str]:
    """Functions that a shared library defines for others."""
    listing = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=posix", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return frozenset(line.split()[0].split("@")[0] for line in listing.splitlines())
