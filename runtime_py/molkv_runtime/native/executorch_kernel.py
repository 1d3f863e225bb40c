"""molkv's kernel for ExecuTorch: built once from the package's sources, then kept.

A kernel library depends on the ExecuTorch it registers with, to the version, so no wheel of molkv
can carry one. It is compiled on first use, in seconds, and kept in the user's cache folder under a
name that changes with everything that went into it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import molkv_runtime.native as package
from molkv_runtime.errors import NativeLibraryError
from molkv_runtime.native.library import load_library

__all__ = ["KERNEL_OPERATOR", "cache_folder", "kernel_library"]

logger = logging.getLogger(__name__)

KERNEL_OPERATOR = "molkv::expert_attention.out"
_SOURCES = ("sources/expert_attention_kernel.cc", "sources/weights_cache.cc")
_HEADER = "sources/molkv/molkv.h"
_FILE = "libmolkv_executorch.dylib" if sys.platform == "darwin" else "libmolkv_executorch.so"
_COMPILERS = ("c++", "g++", "clang++")
# What executorch's CMake package asks of those that compile against the wheel.
_DEFINITIONS = ("C10_USING_CUSTOM_GENERATED_MACROS", "ET_EVENT_TRACER_ENABLED", "ET_USE_THREADPOOL")
_INCLUDES = ("include", "include/executorch/runtime/core/portable_type/c10")
_LIBRARIES = ("executorch", "executorch_threadpool")


def kernel_library(executorch: Path, version: str) -> Path:
    """The library that registers ``molkv::expert_attention.out``; built where it is missing.

    It exports ``int molkv_executorch_cache_weights(int enabled)`` besides.

    Args:
        executorch: the installed package, whose headers and libraries it is built against.
        version: the package's version.

    Raises:
        NativeLibraryError: there is no C++ compiler, or it failed.
    """
    native, compiler = load_library().file, _compiler()
    facts = [version, platform.machine(), str(native), str(executorch), *compiler]
    digest = hashlib.sha256("\0".join(facts).encode())
    for name in (*_SOURCES, _HEADER):
        digest.update(_packaged(name).read_bytes())
    file = cache_folder() / f"executorch-{version}-{digest.hexdigest()[:16]}" / _FILE
    if not file.is_file():
        logger.warning("building molkv's kernel for ExecuTorch %s, once, into %s", version, file)
        _build(compiler, executorch, native, file)
    return file


def cache_folder() -> Path:
    """Where built libraries are kept: ``molkv`` in the user's cache folder."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "molkv"
    home = Path.home()
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "molkv"


def _build(compiler: list[str], executorch: Path, native: Path, file: Path) -> None:
    """Compile under a temporary name, so that others never see half a library."""
    libraries = executorch / "lib"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            built = Path(folder) / _FILE
            command = [
                *compiler,
                *("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"),
                *(f"-D{name}" for name in _DEFINITIONS),
                *(f"-I{executorch / name}" for name in _INCLUDES),
                f"-I{_packaged(_HEADER).parents[1]}",
                *(str(_packaged(name)) for name in _SOURCES),
                *("-o", str(built), f"-L{libraries}"),
                *(f"-l{name}" for name in _LIBRARIES),
                str(native),
                *(f"-Wl,-rpath,{folder}" for folder in (libraries, native.parent)),
            ]
            result = subprocess.run(  # noqa: S603 - a fixed command of the user's own compiler
                command, capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise NativeLibraryError(
                    f"{shlex.join(compiler)} cannot build molkv's kernel for ExecuTorch:\n"
                    f"{result.stderr[-2000:].rstrip()}",
                    fix="set CXX to a C++17 compiler that can",
                )
            built.replace(file)
    except OSError as error:
        raise NativeLibraryError(
            f"{error.filename or file}: cannot be written: {error.strerror}",
            fix="set XDG_CACHE_HOME to a folder that can be written",
        ) from None


def _compiler() -> list[str]:
    """``$CXX``, or the first of the usual names."""
    named = shlex.split(os.environ.get("CXX", ""))
    for candidate in [named] if named else [[name] for name in _COMPILERS]:
        if shutil.which(candidate[0]):
            return candidate
    tried = f"CXX={shlex.join(named)}" if named else ", ".join(_COMPILERS)
    raise NativeLibraryError(
        f"no C++ compiler was found ({tried}) to build molkv's kernel for ExecuTorch",
        fix="install g++ or clang++, or set CXX",
    )


def _packaged(name: str) -> Path:
    # An editable install has two folders: the sources, and where the build put the rest.
    folders = [Path(folder) for folder in package.__path__]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise NativeLibraryError(f"{folders[0] / name} is missing", fix="install molkv again")
