"""``manifest.json``: what a bundle holds, for which model, and whether it was proven."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from molkv_runtime.errors import BundleError
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = [
    "EVALUATED",
    "MANIFEST_FILE",
    "SCHEMA_VERSION",
    "BackendEntry",
    "CachePrecision",
    "CalibrationEntry",
    "DensePrecision",
    "EmbeddingPrecision",
    "FileEntry",
    "LimitsEntry",
    "Manifest",
    "ModelEntry",
    "ParityEntry",
    "QuantizationEntry",
    "RungEntry",
    "TokenizerEntry",
    "decode_json",
    "read_manifest",
    "write_json",
]

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1

DensePrecision = Literal["fp32", "fp16", "int8", "int4", "palettized4"]
"""How a dense graph stores its weights. What each backend has: docs/graph.md, "Backends"."""

EmbeddingPrecision = Literal["f16"]
"""How rows store the input embedding."""

CachePrecision = Literal["fp32", "fp16", "int8"]
"""How a dense graph stores its self-attention cache."""

EVALUATED = "MIL evaluated"
"""In the names of rungs whose Core ML graph was not run but evaluated op by op."""

Record = TypeVar("Record", bound=msgspec.Struct)


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle: its name, size in bytes and sha256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's hyper-parameters, as in the checkpoint's ``config.json``."""

    model_type: str
    architecture: Literal["dense", "mole", "molkv"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    feed_forward: str
    num_experts: int
    expert_intermediate_size: int
    expert_key_size: int
    expert_query_heads: int
    expert_window: int
    expert_scoring: str

    @property
    def head_dim(self) -> int:
        """Size of one self-attention head."""
        return self.hidden_size // self.num_attention_heads


class CalibrationEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How ``--experts auto`` came to its choice (docs/fidelity.md).

    Attributes:
        max_kl: the most KL divergence, in nats a token, that was accepted.
        kl_divergence: of the chosen precision, from the trained experts.
        same_top1: share of positions with the same best token.
        tokens: positions of the calibration text that were compared.
    """

    max_kl: float
    kl_divergence: float
    same_top1: float
    tokens: int


class QuantizationEntry(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the rows hold; dense graphs have a precision each.

    Attributes:
        experts: precision of the experts; None without experts.
        embedding: precision of the input embedding that every row carries; None where the dense
            graphs have the embedding.
        calibration: how the precision of the experts was chosen; None where it was given.
    """

    experts: ExpertPrecision | None
    embedding: EmbeddingPrecision | None = None
    calibration: CalibrationEntry | None = None


class LimitsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sizes that a graph was compiled for.

    Attributes:
        chunk: the most new tokens of one call.
        context: the most tokens of a sequence.
        cache_tokens: positions of the self-attention cache; at least `context`.
        window: W, or 0 without experts.
    """

    chunk: int
    context: int
    cache_tokens: int
    window: int


class BackendEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One backend's dense graph and what it needs to run.

    Attributes:
        graph: the graph's file, or a folder whose files are listed one by one.
        dense: precision of its weights.
        cache: precision of its self-attention cache.
        operators: operator sets, or single operators where a backend has no sets, with versions.
        delegates: libraries that parts of the graph were compiled for.
        limits: what the graph was compiled for; None where it takes any size.
        compute_units: what to load a Core ML graph for; None for the others.
    """

    graph: str
    dense: DensePrecision
    cache: CachePrecision
    operators: dict[str, int]
    delegates: list[str]
    limits: LimitsEntry | None
    compute_units: str | None

    @property
    def is_float32(self) -> bool:
        """Whether weights and cache are, so that tokens are those of golden.json."""
        return self.dense == self.cache == "fp32"


class TokenizerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tokenizer's file and how many tokens it knows."""

    file: str
    vocabulary_size: int


class RungEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rung of the parity ladder: `figure` was measured, `limit` is what it may be.

    `at_least` tells which side of the limit passes.
    """

    name: str
    passed: bool
    figure: float
    limit: float
    at_least: bool = False
    detail: str = ""


class ParityEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verdict of ``molkv verify``."""

    passed: bool
    rungs: list[RungEntry]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest as written.

    `identity` is the sha256 over the checkpoint's weights, in hexadecimal; graph and blob carry it
    too. `producer` maps each tool that made the bundle to its version.
    """

    schema_version: int
    producer: dict[str, str]
    identity: str
    model: ModelEntry
    quantization: QuantizationEntry
    experts: list[str]
    backends: dict[str, BackendEntry]
    tokenizer: TokenizerEntry | None
    golden: str
    files: list[FileEntry]
    parity: ParityEntry | None = None

    @property
    def dense_precisions(self) -> str:
        """Each backend's precision of the dense weights, for people: ``fp32 (onnx)``."""
        return ", ".join(f"{entry.dense} ({name})" for name, entry in self.backends.items())

    def file(self, name: str) -> FileEntry:
        """The entry of a file.

        Raises:
            BundleError: the manifest does not list it.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise BundleError(f"{MANIFEST_FILE}: files does not list {name}", fix="export again")


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest.

    Raises:
        BundleError: it is missing, not JSON, of another schema version, or names files outside the
            folder.
    """
    file = folder / MANIFEST_FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{file}: file is missing", fix="name the folder that `molkv export` wrote"
        ) from None
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from None
    _check_version(file, content)
    manifest = decode_json(file, content, Manifest)
    if manifest.quantization.embedding is not None and not (
        manifest.experts and manifest.quantization.experts
    ):
        raise BundleError(
            f"{file}: quantization.embedding is {manifest.quantization.embedding}, but there are "
            "no expert rows that carry it",
            fix="export again",
        )
    graphs = {backend.graph for backend in manifest.backends.values()}
    for entry in manifest.files:
        if not _stays_inside(entry.name, graphs):
            raise BundleError(
                f"{file}: file name {entry.name!r} is not a bare name",
                fix="a bundle names files of its own folder only; export again",
            )
    listed = {entry.name for entry in manifest.files}
    # A graph that is a folder is there if a file of it is.
    listed |= {name.partition("/")[0] for name in listed}
    named = [*manifest.experts, manifest.golden]
    named += [backend.graph for backend in manifest.backends.values()]
    named += [manifest.tokenizer.file] if manifest.tokenizer else []
    if missing := sorted(set(named) - listed):
        raise BundleError(f"{file}: files does not list {', '.join(missing)}", fix="export again")
    return manifest


def _stays_inside(name: str, graphs: set[str]) -> bool:
    """Whether a name is bare, or that of a file in a graph that is a folder."""
    first, *rest = name.split("/")
    if rest and first not in graphs:
        return False
    return all(Path(part).name == part and part not in ("", "..") for part in (first, *rest))


def _check_version(file: Path, content: bytes) -> None:
    class Versioned(msgspec.Struct):
        schema_version: int

    version = decode_json(file, content, Versioned).schema_version
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file}: schema_version is {version}, this runtime reads {SCHEMA_VERSION}",
            fix="update molkv" if version > SCHEMA_VERSION else "export again",
        )


def decode_json(file: Path, content: bytes, kind: type[Record]) -> Record:
    """Decode a record strictly.

    Raises:
        BundleError: the content is no JSON, or not that of such a record.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"{file}: {error}", fix="copy the bundle again, or export it with this version"
        ) from None


def write_json(file: Path, content: msgspec.Struct) -> None:
    """Write a record as indented JSON, through a temporary name."""
    temporary = file.with_name(f".{file.name}.partial")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
