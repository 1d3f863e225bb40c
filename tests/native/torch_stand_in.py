"""A small library under libtorch's name, for processes in which ExecuTorch runs without torch.

ExecuTorch's Python package has its LLM operators in a library that also makes them known to torch,
when it is loaded, and so needs libtorch: 0.4 GB for 64-bit ARM. The operators themselves use none
of it. This stand-in takes what is made known and does nothing, and ends the process if anything
else of torch is called.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

__all__ = ["CUSTOM_OPS", "write_torch_stand_in"]

CUSTOM_OPS = "extension/llm/custom_ops"
"""Where the Python package keeps the library with its LLM operators."""

_NAMES = ("libtorch.so", "libtorch_cpu.so", "libc10.so")
_OF_TORCH = re.compile(r"_ZN[KOR]*(2at|3c10|5torch|6caffe2)")
# Called while the operators are made known. These give back the object they are called on ...
_REGISTERING = ("_ZN5torch7LibraryC", "_ZNR5torch7Library", "_ZN5torch11CppFunctionD")
# ... and these a c10::FunctionSchema: its names and lists, all empty, are its first 112 bytes.
_SCHEMAS = ("_ZN5torch3jit11parseSchema", "_ZN3c106detail12infer_schema20make_function_schema")
# libtorch has these of a C++ library newer than Debian's: an initializer, and a part of replace().
_NEWER_CXX = {
    "_ZSt21ios_base_library_initv": "void {}(void) {{}}",
    "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm": (
        "void {}(void) {{ abort(); }}"
    ),
}


def write_torch_stand_in(folder: Path, library: Path, target: str = "") -> None:
    """Write what stands for the libraries of torch that a library needs.

    Args:
        folder: where to.
        library: ExecuTorch's.
        target: prefix of the tools' names where the library is for another processor.
    """
    listing = subprocess.run(
        [f"{target}nm", "--dynamic", "--undefined-only", "--format=posix", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    missing = [line.split()[0] for line in listing.splitlines()]
    lines = ["#include <stdlib.h>", "struct schema { char zeros[112]; };"]
    lines += [_definition(name) for name in missing if _OF_TORCH.match(name) or name in _NEWER_CXX]
    source = folder / "torch_stand_in.c"
    source.write_text("\n".join(lines) + "\n")
    first, *others = (folder / name for name in _NAMES)
    # The mangled names of C++ are names in C.
    options = ("-shared", "-fPIC", f"-Wl,-soname,{first.name}")
    subprocess.run([f"{target}gcc", *options, source, "-o", first], check=True)
    for other in others:
        other.symlink_to(first.name)


def _definition(name: str) -> str:
    if name in _NEWER_CXX:
        return _NEWER_CXX[name].format(name)
    if name.startswith(_REGISTERING):
        return f"void *{name}(void *self) {{ return self; }}"
    if name.startswith(_SCHEMAS):
        return f"struct schema {name}(void) {{ return (struct schema){{{{0}}}}; }}"
    return f"void {name}(void) {{ abort(); }}"
