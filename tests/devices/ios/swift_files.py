"""Writes the files that the Swift tests run on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
from tokenizers import Tokenizer

from molkv_export import export
from molkv_export.backends.coreml.package import write_dense_graph
from molkv_export.embedding_place import EmbeddingPlace
from molkv_model.checkpoint import Checkpoint
from molkv_model.embedded import tiny_checkpoint
from molkv_runtime.bundle import file_sha256
from molkv_runtime.manifest import FileEntry, write_json
from molkv_runtime.row_geometry import ExpertPrecision
from tests.small_models import write_checkpoint, write_tokenizer

ATTACKS: Final = Path(__file__).parents[2] / "attacks" / "bundle_folders.py"
# Texts whose encoding goes wrong first where a tokenizer is almost right.
TEXTS: Final = (
    "",
    " ",
    "My fellow citizens",
    "  two  spaces   three ",
    "tabs\tand\nnew\r\nlines\n\n\n",
    "It's we're I'VE they'll don't 'tis",
    "12345 3.14159 1,000,000 x2y3",
    "caf\u00e9 na\u00efve \u00fcber \u0152uvre",
    "cafe\u0301 decomposed",
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "zero\u200bwidth\u00a0no-break\u3000wide",
    "<|endoftext|>",
    "before<|endoftext|>after <|endoftext|>",
    "<|endoftext",
    "!!!???...---___===",
    "CamelCase snake_case kebab-case",
    "https://example.org/a?b=c&d=%20",
    "\u0000\u0001\u007f",
    "a" * 200,
    "The quick brown fox jumps over the lazy dog. " * 8,
)
# Kinds of small models, precisions of their rows and places of the input embedding, with a Core ML
# package each.
CORE_ML: Final[dict[str, tuple[str, ExpertPrecision, EmbeddingPlace]]] = {
    "molkv-f16": ("molkv", "f16", "graph"),
    "molkv-int8": ("molkv", "int8", "graph"),
    "molkv-int4": ("molkv", "int4", "graph"),
    "mole-int8": ("mole", "int8", "graph"),
    "dense": ("dense", "int8", "graph"),
    "stored-embedding": ("molkv-key-gelu-untied", "int8", "storage"),
}
CHUNK: Final = 16


def write_swift_files(folder: Path) -> None:
    """The bundles and cases of Fixtures.swift."""
    folder.mkdir(parents=True)
    tokenizer = write_tokenizer(folder / "small-tokenizer.json")
    untied = write_checkpoint(
        folder / "checkpoints" / "stored", "molkv-key-gelu-untied", tokenizer=tokenizer
    )
    for bundle in (
        export(tiny_checkpoint(), folder / "tiny"),
        export(untied, folder / "stored", embedding="storage"),
    ):
        assert bundle.manifest.parity is not None
        assert bundle.manifest.parity.passed
    export(write_checkpoint(folder / "checkpoint", "molkv"), folder / "small")
    command = [sys.executable, ATTACKS, folder / "small", folder / "attacks"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, check=True, env=environment)
    _write_tokenizer_cases(folder / "tiny" / "tokenizer.json", folder / "tokenizer.json")
    for name, (kind, experts, embedding) in CORE_ML.items():
        checkpoint = write_checkpoint(folder / "checkpoints" / name, kind)
        _write_core_ml_bundle(checkpoint, folder / "coreml" / name, experts, embedding)
    other = write_checkpoint(folder / "checkpoints" / "other", "molkv", seed=2)
    _write_core_ml_bundle(other, folder / "coreml" / "other-checkpoint", "int8", "graph")


def _write_core_ml_bundle(
    checkpoint: Path, folder: Path, experts: ExpertPrecision, embedding: EmbeddingPlace
) -> None:
    """A bundle whose one graph is a Core ML package for short chunks.

    `molkv export --backend coreml` writes the same, and climbs a ladder that takes longer than all
    the Swift tests.
    """
    manifest = export(checkpoint, folder, experts=experts, embedding=embedding).manifest
    for file in folder.glob("dense.onnx*"):
        file.unlink()
    graph = write_dense_graph(
        Checkpoint(checkpoint),
        folder,
        experts,
        manifest.identity,
        embedding=manifest.quantization.embedding,
        chunk=CHUNK,
    )
    files = [entry for entry in manifest.files if not entry.name.startswith("dense.onnx")]
    for file in graph.files:
        name = str(file.relative_to(folder))
        files.append(FileEntry(name, file.stat().st_size, file_sha256(file)))
    backends = {"coreml": graph.entry}
    changed = msgspec.structs.replace(manifest, backends=backends, files=files, parity=None)
    write_json(folder / "manifest.json", changed)


def _write_tokenizer_cases(tokenizer_file: Path, target: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
    target.write_text(json.dumps(cases))
