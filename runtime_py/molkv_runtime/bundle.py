"""A bundle on disk: opened once, checked, and then trusted."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from molkv_runtime.blob import Blob
from molkv_runtime.errors import BundleError, TokenizerError
from molkv_runtime.golden import Golden, read_golden
from molkv_runtime.manifest import Manifest, read_manifest
from molkv_runtime.row_geometry import EXPERT_TYPES, DataType, RowGeometry
from molkv_runtime.text import load_tokenizer

__all__ = ["Bundle", "file_sha256"]


class OpenBlob(Protocol):
    """What every reader of expert blobs states about the one it opened."""

    @property
    def identity(self) -> bytes: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def geometry(self) -> RowGeometry: ...


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder (docs/graph.md, "The bundle").

    Attributes:
        path: the folder.
        manifest: its manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify_checksums: bool = True) -> Bundle:
        """Open a bundle and check that its files are all there and whole.

        The expert blob is not hashed, whatever its size: every row carries its own checksum, which
        is compared when the row is read. `verify_files` hashes it too.

        Args:
            path: the folder that ``molkv export`` wrote.
            verify_checksums: compare the sha256 of every file but the expert blob.

        Raises:
            BundleError: a file is missing, has another size or another checksum.
        """
        folder = Path(path)
        bundle = cls(folder, read_manifest(folder))
        for entry in bundle.manifest.files:
            file = folder / entry.name
            if not file.is_file():
                raise BundleError(f"{file}: file is missing", fix="copy the bundle again")
            if (size := file.stat().st_size) != entry.bytes:
                raise BundleError(
                    f"{file}: has {size} bytes, the manifest says {entry.bytes}",
                    fix="the copy is incomplete; copy the bundle again",
                )
        if verify_checksums:
            blobs = set(bundle.manifest.experts)
            bundle.verify_files([e.name for e in bundle.manifest.files if e.name not in blobs])
        return bundle

    def verify_files(self, names: list[str] | None = None) -> None:
        """Hash files, by default all, and compare with the manifest.

        Raises:
            BundleError: a checksum differs.
        """
        for name in [entry.name for entry in self.manifest.files] if names is None else names:
            entry, actual = self.manifest.file(name), file_sha256(self.path / name)
            if actual != entry.sha256:
                raise BundleError(
                    f"{self.path / name}: sha256 is {actual}, the manifest says {entry.sha256}",
                    fix="the file was changed or damaged; copy the bundle again",
                )

    @property
    def expert_files(self) -> list[Path]:
        """The expert blob's files; none where the model has no experts."""
        return [self.path / name for name in self.manifest.experts]

    @property
    def tokenizer_file(self) -> Path | None:
        """The tokenizer, if there is one."""
        entry = self.manifest.tokenizer
        return None if entry is None else self.path / entry.file

    def open_experts(self) -> Blob | None:
        """Open the expert blob and check that it belongs to this dense graph.

        Returns:
            the blob, or None where the model has no experts.

        Raises:
            BlobFormatError: the blob breaks its format.
            BundleError: it is another checkpoint's, or of another geometry.
        """
        if not self.expert_files:
            return None
        blob = Blob.open(self.expert_files)
        try:
            self.check_experts(blob)
        except BundleError:
            blob.close()
            raise
        return blob

    def check_experts(self, blob: OpenBlob) -> None:
        """Check that an open expert blob belongs to this dense graph.

        Raises:
            BundleError: it is another checkpoint's, or of another geometry.
        """
        geometry = self.row_geometry()
        facts: list[tuple[str, object, object]] = [
            ("identity", blob.identity.hex(), self.manifest.identity),
            ("vocabulary_size", blob.vocabulary_size, self.manifest.model.vocab_size),
        ]
        for field in dataclasses.fields(RowGeometry):
            pair = (getattr(blob.geometry, field.name), getattr(geometry, field.name))
            facts.append((field.name, *pair))
        for name, actual, expected in facts:
            if actual != expected:
                raise BundleError(
                    f"{self.expert_files[0]}: {name} is {actual}, the dense graph's is {expected}",
                    fix="graph and blob must come from one export",
                )

    def load_tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None: then ids go in and ids come out.

        Raises:
            TokenizerError: it cannot be read, or is not the one that the manifest describes.
        """
        entry = self.manifest.tokenizer
        if entry is None:
            return None
        tokenizer = load_tokenizer(self.path / entry.file)
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        self.check_tokenizer(max(ids, default=-1) + 1, len(ids))
        return tokenizer

    def check_tokenizer(self, vocabulary_size: int, token_count: int) -> None:
        """Check that an open tokenizer is the one that the manifest describes.

        Args:
            vocabulary_size: one more than its largest id. Models often pad their vocabulary, so
                it may be smaller than theirs.
            token_count: how many tokens it has.

        Raises:
            TokenizerError: it has ids that the model lacks, or another number of tokens.
        """
        entry, wanted = self.manifest.tokenizer, self.manifest.model.vocab_size
        fix = "use the tokenizer the model was trained with"
        if vocabulary_size > wanted:
            raise TokenizerError(
                f"{self.tokenizer_file}: has a vocabulary of {vocabulary_size} ids, and the model "
                f"one of {wanted}",
                fix=fix,
            )
        if entry is not None and token_count != entry.vocabulary_size:
            raise TokenizerError(
                f"{self.tokenizer_file}: has {token_count} tokens, the manifest says "
                f"{entry.vocabulary_size}",
                fix=fix,
            )

    def load_golden(self) -> Golden:
        """The golden cases.

        Raises:
            BundleError: the file is damaged or of another version.
        """
        return read_golden(self.path / self.manifest.golden, self.manifest.model.vocab_size)

    def graph_file(self, backend: str) -> Path:
        """The dense graph of a backend.

        Raises:
            BundleError: the bundle has none for it.
        """
        if backend not in self.manifest.backends:
            there = ", ".join(sorted(self.manifest.backends))
            raise BundleError(
                f"{self.path}: has no {backend} graph, only {there}",
                fix=f"export with --backend {backend}",
            )
        return self.path / self.manifest.backends[backend].graph

    def row_geometry(self) -> RowGeometry:
        """The geometry that the model's expert rows must have.

        Raises:
            BundleError: the model has no experts.
        """
        model, precision = self.manifest.model, self.manifest.quantization.experts
        if precision is None:
            raise BundleError(
                f"{self.path}: the model has no experts", fix="open a MoLE or MoLKV bundle"
            )
        return RowGeometry.of(
            layers=model.num_hidden_layers,
            experts=model.num_experts,
            key_heads=model.expert_query_heads if model.architecture == "molkv" else 0,
            key_size=model.expert_key_size,
            value_size=model.hidden_size,
            dtype=EXPERT_TYPES[precision],
            embedding_dtype=(
                DataType.NONE if self.manifest.quantization.embedding is None else DataType.FLOAT16
            ),
        )


def file_sha256(file: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
