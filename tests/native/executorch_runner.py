"""Builds molkv-run with ExecuTorch, and the kernels that it loads besides."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.native.runner import Runner, build_arm64_runner, build_runner

if TYPE_CHECKING:
    from tests.native.builds import Builds

PLAIN_KERNELS = Path(__file__).with_name("llama_kernels.cc")
# What ExecuTorch's CMake package asks of those that compile against it.
_DEFINITIONS = ("C10_USING_CUSTOM_GENERATED_MACROS", "ET_EVENT_TRACER_ENABLED", "ET_USE_THREADPOOL")
_INCLUDES = ("include", "include/executorch/runtime/core/portable_type/c10")


@dataclass(frozen=True)
class Kernels:
    """A library with ExecuTorch's LLM operators, which the Python package's libraries lack."""

    library: Path
    preload: Path | None = None

    def given_to(self, runner: Runner) -> Runner:
        """The program that loads them."""
        options = ("--backend", "executorch", "--operator-library", str(self.library))
        return replace(runner, options=options, preload=self.preload)


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


def package_kernels(folder: Path) -> Kernels:
    """The Python package's own kernels, in a process that is not Python.

    Their library is linked with libtorch, which lies in the environment, and with the package's
    extension of Python, of which it uses nothing. An empty library takes that one's name.
    """
    (library,) = (installed_executorch() / "extension/llm/custom_ops").glob("libcustom_ops*.so")
    (extension,) = (installed_executorch() / "extension/pybindings").glob("_C.*.so")
    empty = folder / "empty.so"
    command = ["cc", "-shared", f"-Wl,-soname,{extension.name}", "-x", "c", "/dev/null"]
    subprocess.run([*command, "-o", empty], check=True)
    return Kernels(library, empty)


def plain_kernels(folder: Path, executorch: Path, compiler: str = "c++") -> Kernels:
    """Those of llama_kernels.cc, for any processor."""
    library = folder / "libllama_kernels.so"
    command = [
        *(compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"),
        *(f"-D{name}" for name in _DEFINITIONS),
        *(argument for name in _INCLUDES for argument in ("-isystem", str(executorch / name))),
        *(str(PLAIN_KERNELS), "-o", str(library), f"-L{executorch / 'lib'}", "-lexecutorch"),
    ]
    subprocess.run(command, check=True)
    return Kernels(library)


def _options(executorch: Path) -> tuple[str, ...]:
    return ("-DMOLKV_BUILD_EXECUTORCH=ON", f"-Dexecutorch_DIR={executorch / 'share' / 'cmake'}")
