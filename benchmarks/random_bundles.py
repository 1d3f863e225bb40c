"""Bundles of random weights for benchmarks, and processes of their own to measure in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from molkv_runtime.bundle import file_sha256
from molkv_runtime.golden import GOLDEN_FILE, Golden
from molkv_runtime.golden import SCHEMA_VERSION as GOLDEN_VERSION
from molkv_runtime.manifest import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    CachePrecision,
    DensePrecision,
    EmbeddingPrecision,
    FileEntry,
    Manifest,
    ModelEntry,
    QuantizationEntry,
    write_json,
)
from molkv_runtime.row_geometry import ExpertPrecision

# Children import this file again: nothing above may load torch, which only some of them need.
if TYPE_CHECKING:
    from molkv_model.config import ModelConfig

__all__ = [
    "BLOB_FILE",
    "COSTS_FILE",
    "Precision",
    "checkpoint_path",
    "in_child",
    "make_bundle",
    "make_model",
    "resident",
    "write_blob",
    "write_bundle",
    "write_checkpoint",
]

BLOB_FILE = "experts.molkv"
COSTS_FILE = "export.json"
# Speed does not depend on it.
_CACHE_SCALE = 0.05
_EMBEDDED_BLOB_FILE = "experts-and-embedding.molkv"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Precision:
    """Of the dense weights and of the self-attention cache."""

    dense: DensePrecision
    cache: CachePrecision

    def __str__(self) -> str:
        return f"{self.dense}, cache {self.cache}"

    def bundle(
        self, root: Path, *, experts: bool, embedding: EmbeddingPrecision | None = None
    ) -> Path:
        """Where the bundle of a model with or without experts is, its embedding in rows or not."""
        part = _part(experts) if embedding is None else "embedded"
        return root / f"{part}-{self.dense}-{self.cache}"


def checkpoint_path(root: Path, *, experts: bool) -> Path:
    """Where the checkpoint of a model with or without experts is."""
    return root / f"checkpoint-{_part(experts)}"


def make_model(config: ModelConfig, root: Path) -> None:
    """Checkpoints of a model with and without its experts, and its blob, where they are missing."""
    for experts in (True, False):
        folder = checkpoint_path(root, experts=experts)
        # What a checkpoint gets last: a run that was interrupted left the folder without it.
        if not (folder / "config.json").exists():
            in_child(write_checkpoint, config if experts else config.without_experts(), folder)
    if not (root / BLOB_FILE).exists():
        in_child(write_blob, checkpoint_path(root, experts=True), root / BLOB_FILE)


def make_bundle(
    root: Path,
    precision: Precision,
    *,
    experts: bool,
    embedding: EmbeddingPrecision | None = None,
) -> None:
    """An ONNX bundle of what `make_model` made, where it is missing."""
    source = checkpoint_path(root, experts=experts)
    blob = root / (BLOB_FILE if embedding is None else _EMBEDDED_BLOB_FILE)
    if embedding is not None and not blob.exists():
        in_child(write_blob, source, blob, "int8", embedding)
    out = precision.bundle(root, experts=experts, embedding=embedding)
    if not out.exists():
        in_child(_write_onnx, out, source, blob, precision, embedding)


def _write_onnx(
    out: Path,
    source: Path,
    blob: Path,
    precision: Precision,
    embedding: EmbeddingPrecision | None,
) -> None:
    write_bundle(
        out, source, blob, "onnx", precision.dense, cache=precision.cache, embedding=embedding
    )


def _part(experts: bool) -> str:
    return "experts" if experts else "dense"


def in_child(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a function in a new process that has nothing of this one's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident(field: str) -> int:
    """Bytes of this process's memory: VmHWM, its peak; VmRSS; RssAnon, what no file backs."""
    # `getrusage` would report the parent's peak: it outlives the fork and the exec.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    sys.exit(f"/proc/self/status: has no {field}")


def write_checkpoint(config: ModelConfig, folder: Path) -> None:
    """A checkpoint of random weights."""
    from molkv_model.checkpoint import save
    from molkv_model.modeling import LanguageModel

    model = LanguageModel(config)
    model.reset_parameters(seed=0)
    save(model, folder)


def write_blob(
    checkpoint_folder: Path,
    file: Path,
    experts: ExpertPrecision = "int8",
    embedding: EmbeddingPrecision | None = None,
) -> None:
    """The expert blob, which all bundles of a checkpoint share."""
    from molkv_export import expert_pass
    from molkv_model.checkpoint import Checkpoint

    checkpoint = Checkpoint(checkpoint_folder)
    with TemporaryDirectory(dir=file.parent) as folder:
        (written,) = expert_pass.write_blob(
            checkpoint, Path(folder), experts, checkpoint.identity(), embedding
        )
        written.replace(file)


def write_bundle(
    out: Path,
    checkpoint_folder: Path,
    blob: Path,
    backend: str,
    dense: DensePrecision,
    *,
    experts: ExpertPrecision = "int8",
    cache: CachePrecision | None = None,
    embedding: EmbeddingPrecision | None = None,
) -> None:
    """What `molkv export` writes, without golden cases and verdict, which take minutes each.

    Args:
        out: the bundle folder.
        checkpoint_folder: of the model.
        blob: its experts; linked into the bundle if the model has any.
        backend: whose dense graph.
        dense: precision of its weights.
        experts: precision of the rows.
        cache: of the self-attention cache; None is the backend's default.
        embedding: of the input embedding in the rows; None puts it into the graph.
    """
    import numpy as np

    from molkv_export.backends.catalogue import BACKENDS, write_dense_graph
    from molkv_export.cache_scales import CacheScales
    from molkv_export.output_folder import partial_folder, put_in_place
    from molkv_export.pass_costs import measured
    from molkv_export.threads import torch_threads
    from molkv_model.checkpoint import Checkpoint

    checkpoint = Checkpoint(checkpoint_folder)
    config, identity = checkpoint.config, checkpoint.identity().hex()
    scale = np.full(config.num_hidden_layers, _CACHE_SCALE, np.float32)
    scales = CacheScales(scale, scale) if cache == "int8" else None
    with partial_folder(out) as folder, torch_threads(config.hidden_size):
        with measured() as cost:
            graph = write_dense_graph(
                backend, checkpoint, folder, experts, identity, dense, scales, embedding
            )
        files = [*graph.files, folder / GOLDEN_FILE]
        if config.has_experts:
            (folder / BLOB_FILE).hardlink_to(blob)
            files.append(folder / BLOB_FILE)
        write_json(folder / GOLDEN_FILE, Golden(GOLDEN_VERSION, cases=[], rows=[]))
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            producer={name: version(name) for name in BACKENDS[backend].packages},
            identity=identity,
            model=ModelEntry(**config.to_json()),
            quantization=QuantizationEntry(
                experts=experts if config.has_experts else None, embedding=embedding
            ),
            experts=[BLOB_FILE] if config.has_experts else [],
            backends={backend: graph.entry},
            tokenizer=None,
            golden=GOLDEN_FILE,
            files=[FileEntry(file.name, file.stat().st_size, file_sha256(file)) for file in files],
        )
        write_json(folder / MANIFEST_FILE, manifest)
        (folder / COSTS_FILE).write_text(json.dumps(asdict(cost)), encoding="utf-8")
        put_in_place(folder, out)
