"""Small bundles with an ExecuTorch program: each is lowered once, for all tests and workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.small_models import write_checkpoint, write_tokenizer

__all__ = ["PROGRAMS", "ProgramBundleOf", "Programs", "shared_programs"]

ProgramBundleOf = Callable[[str], Path]

# Every kind of graph once: each lowering takes many seconds.
_CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "molkv": ("molkv", {}),
    # A context longer than the program's chunk.
    "mole": ("mole", {"num_hidden_layers": 1, "max_position_embeddings": 160}),
    "untied": ("molkv-key-gelu-untied", {"num_hidden_layers": 1}),
    "dense": ("dense", {"num_hidden_layers": 1}),
    # An intermediate size that int4 groups of 32 do not divide.
    "int8-weights": ("molkv", {"num_hidden_layers": 1}),
    "int4-weights": ("molkv", {"num_hidden_layers": 1}),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "molkv": {"backends": ["onnx", "executorch"]},
    "mole": {"experts": "f16"},
    "untied": {"experts": "f16", "embedding": "storage"},
    "int8-weights": {"dense": "int8"},
    "int4-weights": {"dense": "int4", "experts": "int4"},
}
_WITH_TOKENIZER = ("molkv", "int8-weights")
PROGRAMS = tuple(_CHECKPOINTS)


@dataclass(frozen=True)
class Programs:
    """Checkpoints and bundles below `folder`; not to be changed."""

    folder: Path

    def checkpoint(self, name: str) -> Path:
        """From one of PROGRAMS to its checkpoint folder."""
        folder = self.folder / f"checkpoint-{name}"
        kind, changes = _CHECKPOINTS[name]
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                tokenizer = None
                if name in _WITH_TOKENIZER:
                    tokenizer = write_tokenizer(self.folder / f"tokenizer-{name}.json")
                write_checkpoint(folder, kind, tokenizer=tokenizer, **changes)
        return folder

    def bundle(self, name: str) -> Path:
        """From one of PROGRAMS to its bundle folder."""
        from molkv_export import export

        folder, checkpoint = self.folder / f"bundle-{name}", self.checkpoint(name)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                options = {"backends": ["executorch"], **_OPTIONS.get(name, {})}
                export(checkpoint, folder, **options)
        return folder


def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The same for all workers, so that none lowers what another one has."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "executorch"
    folder.mkdir(exist_ok=True)
    return Programs(folder)
