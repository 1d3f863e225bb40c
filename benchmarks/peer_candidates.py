"""The variants of each engine that are compared, with the files that they load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from peer_engines import Engine, GenaiEngine, LlamaEngine, MolkvEngine
from peer_models import write_genai, write_gguf
from random_bundles import Precision, checkpoint_path, in_child, make_bundle

from molkv_runtime.manifest import CachePrecision, DensePrecision

__all__ = ["DENSE", "GENAI", "LLAMA", "MOLKV", "Candidate", "candidates_of", "exact_candidates"]

MOLKV, LLAMA, GENAI = "molkv", "llama.cpp", "onnxruntime-genai"
ENGINES: dict[str, Callable[[Path, int, str], Engine]] = {
    MOLKV: MolkvEngine,
    LLAMA: LlamaEngine,
    GENAI: GenaiEngine,
}
DENSE: dict[int, DensePrecision] = {32: "fp32", 8: "int8", 4: "int4"}
GENAI_BLOCK = 32


@dataclass(frozen=True)
class Candidate:
    """One variant of an engine.

    Attributes:
        engine: its name.
        bits: of a dense weight.
        cache: precision of the self-attention cache, as the engine calls it.
        experts: whether the model has them; they are read from storage.
        block: weights that share a scale, where the engine leaves the choice.
    """

    engine: str
    bits: int
    cache: str
    experts: bool = False
    block: int | None = None

    def __str__(self) -> str:
        return f"{self.engine}{' + experts' if self.experts else ''}, {self.variant}"

    @property
    def variant(self) -> str:
        """What tells it from its engine's others."""
        block = "" if self.block is None else f", block {self.block}"
        return f"{self.bits} bits, cache {self.cache}{block}"

    @property
    def precision(self) -> Precision:
        """Of molkv's bundle."""
        return Precision(DENSE[self.bits], cast(CachePrecision, self.cache))

    def path(self, root: Path) -> Path:
        """Its file or folder."""
        if self.engine == MOLKV:
            return self.precision.bundle(root, experts=self.experts)
        if self.engine == LLAMA:
            return root / f"llama-{self.bits}.gguf"
        return root / f"genai-{self.bits}-{self.block}-{self.cache}"

    def make(self, root: Path) -> None:
        """Write its file or folder, where it is missing."""
        if self.path(root).exists():
            return
        source = checkpoint_path(root, experts=False)
        if self.engine == MOLKV:
            make_bundle(root, self.precision, experts=self.experts)
        elif self.engine == LLAMA:
            in_child(write_gguf, source, self.path(root), self.bits)
        else:
            in_child(write_genai, source, self.path(root), self.bits, self.block, self.cache)

    def open(self, root: Path, threads: int) -> Engine:
        """Load it."""
        return ENGINES[self.engine](self.path(root), threads, self.cache)

    def files(self, root: Path) -> list[Path]:
        """What it loads; the expert blob, of which it reads rows, is not among them."""
        path = self.path(root)
        names = ("dense.onnx*",) if self.engine == MOLKV else ("*.onnx*", "genai_config.json")
        return [path] if path.is_file() else [file for name in names for file in path.glob(name)]


def candidates_of(bits: int, block: int) -> list[Candidate]:
    """All variants that are timed against each other.

    Args:
        bits: of a dense weight.
        block: of molkv's bundles.
    """
    ours = [
        Candidate(MOLKV, bits, cache, experts)
        for cache in ("fp32", "int8")
        for experts in (False, True)
    ]
    llama = [Candidate(LLAMA, bits, cache) for cache in ("f16", "f16 flash", "q8_0")]
    genai = [
        Candidate(GENAI, bits, cache, block=size)
        for cache, size in (("fp32", GENAI_BLOCK), ("fp32", block), ("int8", block))
    ]
    return [*ours, *llama, *genai]


def exact_candidates() -> list[Candidate]:
    """Every engine without any rounding: these have to agree with torch."""
    ours = [Candidate(MOLKV, 32, "fp32", experts) for experts in (False, True)]
    return [*ours, Candidate(LLAMA, 32, "fp32"), Candidate(GENAI, 32, "fp32", block=GENAI_BLOCK)]
