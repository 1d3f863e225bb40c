"""Builds molkv-run and runs it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from tests.native.builds import Builds

# What a healthy run needs at most is far less, also on an emulated processor.
_SECONDS = 300


@dataclass(frozen=True)
class Runner:
    """The program with the ONNX Runtime that it loads, perhaps behind an emulator.

    `options` are passed in every run; `libraries` is a folder in which libraries are looked for
    first.
    """

    program: Path
    onnxruntime: Path
    emulator: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    libraries: Path | None = None

    def run(
        self, *arguments: str | Path, stdout: IO[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs it with one thread; the exit status is the caller's to judge."""
        command = [*self.emulator, str(self.program), *map(str, arguments), *self.options]
        environment = {**os.environ, "MOLKV_ONNXRUNTIME": str(self.onnxruntime)}
        if self.libraries is not None:
            environment["LD_LIBRARY_PATH"] = str(self.libraries)
        return subprocess.run(
            [*command, *([] if "--threads" in arguments else ["--threads", "1"])],
            env=environment,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=_SECONDS,
            check=False,
        )

    def done(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A run that succeeds."""
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """What a run that succeeds prints, and prints nothing else."""
        result = self.done(*arguments, "--json")
        assert result.stderr == ""
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def refused(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A run that ends in one line that names a problem and, in brackets, a fix."""
        result = self.run(*arguments)
        assert result.returncode == 2, (result.returncode, result.stderr)
        assert result.stderr.startswith("molkv-run: ")
        assert result.stderr.rstrip().endswith(")")
        return result


def build_runner(builds: Builds, kind: str = "plain", options: tuple[str, ...] = ()) -> Runner:
    """The program for this machine, with the ONNX Runtime of the Python package.

    `options` are CMake's, besides the one that builds it.
    """
    build = builds.build(kind, "molkv-run", options=("-DMOLKV_BUILD_RUNNER=ON", *options))
    libraries = Path(onnxruntime.__file__).parent / "capi"
    (library,) = libraries.glob("libonnxruntime.so.*")
    return Runner(build / "runner" / "molkv-run", library)


def build_arm64_runner(
    builds: Builds, onnxruntime: Path, emulator: tuple[str, ...], options: tuple[str, ...] = ()
) -> Runner:
    """The program for 64-bit ARM, behind an emulator, with an ONNX Runtime for the same.

    OpenSSL is the only library that it needs besides: Debian's own static one is linked.
    """
    folder = builds.folder / "arm64-openssl"
    with (builds.folder / "arm64-openssl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "usr").exists():
            _unpack_arm64_package("libssl-dev", folder)
    headers, triplet = folder / "usr" / "include", "aarch64-linux-gnu"
    options = (
        *options,
        "-DMOLKV_BUILD_RUNNER=ON",
        "-DOPENSSL_USE_STATIC_LIBS=ON",
        f"-DOPENSSL_INCLUDE_DIR={headers}",
        f"-DOPENSSL_CRYPTO_LIBRARY={folder / 'usr' / 'lib' / triplet / 'libcrypto.a'}",
        f"-DCMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES={headers / triplet}",
    )
    build = builds.build("arm64", "molkv-run", options=options)
    return Runner(build / "runner" / "molkv-run", onnxruntime, emulator)


def _unpack_arm64_package(name: str, folder: Path) -> None:
    """Unpacks a Debian package for 64-bit ARM, with lists apart from the system's own."""
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    apt = [
        *("apt-get", "-qq", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures::=arm64"),
        *("-o", f"Dir::State={state}", "-o", f"Dir::Cache={state / 'cache'}"),
        *("-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root"),
    ]
    for command in (["update"], ["download", name]):
        subprocess.run([*apt, *command], cwd=folder, check=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "--extract", package, folder], check=True)
    shutil.rmtree(state)
