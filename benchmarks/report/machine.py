"""What figures depend on: processor, memory, system, versions of what does the work."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from molkv_runtime.threads import available_cores

__all__ = ["PACKAGES", "Machine", "this_machine"]

PACKAGES = (
    *("molkv", "onnxruntime", "executorch", "torch", "numpy"),
    *("llama-cpp-python", "gguf", "onnxruntime-genai"),
)


@dataclass(frozen=True)
class Machine:
    """One machine with one environment.

    Attributes:
        processor: its own name.
        architecture: such as ``x86_64``.
        cores: that this process may use.
        memory_bytes: of the machine.
        system: kernel and release.
        versions: by package; those that are not installed are left out.
    """

    processor: str
    architecture: str
    cores: int
    memory_bytes: int
    system: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """For the files of results."""
        return asdict(self)


def this_machine() -> Machine:
    """The one that this runs on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        architecture=platform.machine(),
        cores=available_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        versions=versions,
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
