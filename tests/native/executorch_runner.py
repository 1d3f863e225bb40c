"""Builds molkv-run with ExecuTorch, and the kernels that it loads besides."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.native.runner import Runner, build_arm64_runner, build_runner
from tests.native.torch_stand_in import CUSTOM_OPS, write_torch_stand_in

if TYPE_CHECKING:
    from tests.native.builds import Builds


@dataclass(frozen=True)
class Kernels:
    """The library with ExecuTorch's LLM operators, and a folder with others that it needs."""

    library: Path
    needed: Path

    def given_to(self, runner: Runner) -> Runner:
        """The program that loads them."""
        options = ("--backend", "executorch", "--operator-library", str(self.library))
        return replace(runner, options=options, libraries=self.needed)


def installed_executorch() -> Path:
    """The Python package's folder, without loading it."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def build_executorch_runner(builds: Builds) -> Runner:
    """The program for this machine, linked with the Python package's libraries."""
    return build_runner(builds, "executorch", _options(installed_executorch()))


def build_arm64_executorch_runner(
    builds: Builds, onnxruntime: Path, executorch: Path, emulator: tuple[str, ...]
) -> Runner:
    """The program for 64-bit ARM, behind an emulator."""
    return build_arm64_runner(builds, onnxruntime, emulator, _options(executorch))


def package_kernels(
    folder: Path, executorch: Path, *, torch: bool = False, target: str = ""
) -> Kernels:
    """The Python package's own kernels, in a process that is not Python.

    Their library is linked with libtorch and with the package's extension of Python. It uses
    nothing of the latter, so an empty library takes its name.

    Args:
        folder: an existing one for the libraries that it needs.
        executorch: the package's.
        torch: whether the environment's libtorch is loaded; otherwise a stand-in for it.
        target: prefix of the tools' names where the package is for another processor.
    """
    (library,) = executorch.glob(f"{CUSTOM_OPS}/libcustom_ops_aot_lib.so")
    needed = _needed(library, f"{target}readelf")
    (extension,) = (name for name in needed if name.startswith("_C."))
    options = ("-shared", f"-Wl,-soname,{extension}", "-x", "c", "/dev/null")
    subprocess.run([f"{target}gcc", *options, "-o", str(folder / extension)], check=True)
    if not torch:
        write_torch_stand_in(folder, library, target)
    return Kernels(library, folder)


def _needed(library: Path, readelf: str) -> list[str]:
    """Names of the libraries that a library is linked with."""
    command = [readelf, "--dynamic", str(library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", listing)


def _options(executorch: Path) -> tuple[str, ...]:
    return ("-DMOLKV_BUILD_EXECUTORCH=ON", f"-Dexecutorch_DIR={executorch / 'share' / 'cmake'}")
