"""Fixtures that several suites share; each worker makes its own on first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_models import write_checkpoint, write_tokenizer

# Two workers on two cores: a second thread each only makes both wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CheckpointOf = Callable[[str], Path]
BundleOf = Callable[..., Path]


@pytest.fixture(scope="session")
def small_models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small-models")


@pytest.fixture(scope="session")
def tokenizer_file(small_models_folder: Path) -> Path:
    return write_tokenizer(small_models_folder / "tokenizer.json")


@pytest.fixture(scope="session")
def checkpoint_of(small_models_folder: Path, tokenizer_file: Path) -> CheckpointOf:
    """From a kind of small_models.KINDS, perhaps with "+tokenizer", to a checkpoint folder."""

    def make(name: str) -> Path:
        folder = small_models_folder / f"checkpoint-{name}"
        if not folder.exists():
            kind, _, extra = name.partition("+")
            write_checkpoint(folder, kind, tokenizer=tokenizer_file if extra else None)
        return folder

    return make


@pytest.fixture(scope="session")
def bundle_of(small_models_folder: Path, checkpoint_of: CheckpointOf) -> BundleOf:
    """From a kind, as above, and precisions to a bundle folder; not to be changed."""

    def make(
        name: str,
        experts: str = "int8",
        *,
        dense: str | None = None,
        cache: str | None = None,
        embedding: str = "graph",
    ) -> Path:
        from molkv_export import export

        folder = small_models_folder / f"bundle-{name}-{experts}-{dense}-{cache}-{embedding}"
        if not folder.exists():
            options = {"dense": dense, "cache": cache, "embedding": embedding}
            export(checkpoint_of(name), folder, experts=experts, **options)
        return folder

    return make
