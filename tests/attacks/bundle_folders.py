"""Makes hostile bundles, each from a valid one by breaking one promise.

Run `python tests/attacks/bundle_folders.py BUNDLE OUT_DIR` to write them all, and an
`expected.json` that says which error each must be refused with, when, and what its message names.
BUNDLE is an int8 bundle with experts.

`when` is `open` (opening the folder), `session` (making a session from it) or `read` (running the
token ids 0 to 7).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import google_crc32c
import numpy as np
import onnx

from molkv_export.blob_writer import BlobWriter
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry, RowLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PAGE: Final = 16384
IDENTITY_OFFSET: Final = 112
TOKEN_OF_BAD_ROW: Final = 3

Edit = "Callable[[Path], None]"


@dataclass(frozen=True)
class Attack:
    """One hostile bundle.

    Attributes:
        name: of its folder.
        edit: breaks a copy of a valid bundle.
        when: `open`, `session` or `read`.
        error: class of the error.
        message: what the error's message must contain, besides a fix.
    """

    name: str
    edit: Callable[[Path], None]
    when: str
    error: str
    message: tuple[str, ...]


def attacks() -> list[Attack]:
    """All of them."""
    manifest, blob, graph = "manifest.json: ", "experts.molkv: ", "dense.onnx: "
    return [
        Attack("no-folder", shutil.rmtree, "open", "BundleError", (manifest, "missing")),
        Attack("empty-folder", _empty, "open", "BundleError", (manifest, "missing")),
        Attack(
            "manifest-missing",
            lambda folder: (folder / "manifest.json").unlink(),
            "open",
            "BundleError",
            (manifest, "missing"),
        ),
        Attack(
            "manifest-is-a-folder",
            _manifest_as_folder,
            "open",
            "BundleError",
            (manifest, "directory"),
        ),
        *_broken_manifests(manifest),
        *(
            Attack(
                f"{name.replace('.', '-')}-{fault}",
                lambda folder, name=name, change=change: change(folder / name),
                "open",
                "BundleError",
                (f"{name}: ", *message),
            )
            for name in ("experts.molkv", "dense.onnx", "dense.onnx.data", "golden.json")
            for fault, change, message in (
                ("missing", Path.unlink, ("missing",)),
                ("truncated", _cut, ("bytes, the manifest says",)),
                ("extended", _extend, ("bytes, the manifest says",)),
            )
        ),
        *(
            Attack(
                f"{name.replace('.', '-')}-byte-flipped",
                lambda folder, name=name: _flip(folder / name),
                "open",
                "BundleError",
                (f"{name}: sha256 is ", "the manifest says"),
            )
            for name in ("dense.onnx", "dense.onnx.data", "golden.json", "README.md")
        ),
        Attack(
            "blob-truncated-and-manifest-fixed",
            lambda folder: _fixed_up(folder, "experts.molkv", _cut),
            "session",
            "BlobFormatError",
            (blob, "file length is "),
        ),
        Attack(
            "blob-of-another-checkpoint",
            lambda folder: _fixed_up(folder, "experts.molkv", _other_identity),
            "session",
            "BundleError",
            (blob, "identity is 5a5a", "the dense graph's is"),
        ),
        Attack(
            "blob-of-float16",
            lambda folder: _fixed_up(folder, "experts.molkv", _as_float16),
            "session",
            "BundleError",
            (blob, "dtype is "),
        ),
        Attack(
            "blob-of-a-smaller-vocabulary",
            lambda folder: _fixed_up(folder, "experts.molkv", _without_last_row),
            "session",
            "BundleError",
            (blob, "vocabulary_size is "),
        ),
        Attack(
            "row-byte-flipped",
            _flip_row,
            "read",
            "RowCorruptError",
            (blob, f"token id {TOKEN_OF_BAD_ROW}:", "CRC32C"),
        ),
        Attack(
            "graph-of-another-checkpoint",
            lambda folder: _graph_metadata(folder, "molkv.identity", "5a" * 32),
            "session",
            "BundleError",
            (graph, "identity is 5a5a", "the manifest says"),
        ),
        Attack(
            "graph-without-identity",
            lambda folder: _graph_metadata(folder, "molkv.identity", None),
            "session",
            "BundleError",
            (graph, "identity is None"),
        ),
        Attack(
            "graph-of-float16-experts",
            lambda folder: _graph_metadata(folder, "molkv.experts", "f16"),
            "session",
            "BundleError",
            (graph, "experts is f16", "the manifest says int8"),
        ),
        Attack(
            "graph-of-int8-weights",
            lambda folder: _graph_metadata(folder, "molkv.dense", "int8"),
            "session",
            "BundleError",
            (graph, "dense is int8", "the manifest says fp32"),
        ),
        Attack(
            "graph-of-an-int8-cache",
            lambda folder: _graph_metadata(folder, "molkv.cache", "int8"),
            "session",
            "BundleError",
            (graph, "cache is int8", "the manifest says fp32"),
        ),
        Attack(
            "graph-that-wants-embeddings",
            lambda folder: _graph_metadata(folder, "molkv.embedding", "storage"),
            "session",
            "BundleError",
            (graph, "embedding is storage", "the manifest says None"),
        ),
        Attack(
            "graph-that-has-the-embedding",
            lambda folder: _quantization(folder, embedding="f16"),
            "session",
            "BundleError",
            (graph, "embedding is None", "the manifest says storage"),
        ),
        Attack(
            "blob-with-embeddings",
            lambda folder: _fixed_up(folder, "experts.molkv", _with_embeddings),
            "session",
            "BundleError",
            (blob, "embedding_dtype is ", "the dense graph's is"),
        ),
        Attack(
            "graph-is-no-onnx",
            lambda folder: _fixed_up(
                folder, "dense.onnx", lambda file: file.write_bytes(b"not a graph")
            ),
            "session",
            "BundleError",
            (graph, "cannot load"),
        ),
        Attack(
            "tokenizer-of-a-larger-vocabulary",
            lambda folder: _tokenizer(folder, 1),
            "session",
            "TokenizerError",
            ("tokenizer.json", "vocabulary"),
        ),
        Attack(
            "tokenizer-of-a-smaller-vocabulary",
            lambda folder: _tokenizer(folder, -20),
            "session",
            "TokenizerError",
            ("tokenizer.json", "tokens, the manifest says"),
        ),
        Attack(
            "tokenizer-is-no-tokenizer",
            lambda folder: _add_file(folder, "tokenizer.json", b"{}", tokens=5),
            "session",
            "TokenizerError",
            ("tokenizer.json",),
        ),
    ]


def _broken_manifests(manifest: str) -> list[Attack]:
    def edited(name: str, message: tuple[str, ...], **changes: Any) -> Attack:
        def edit(folder: Path) -> None:
            fields = _read(folder)
            for key, value in changes.items():
                if isinstance(value, dict):
                    fields[key] = {**(fields[key] or {}), **value}
                else:
                    fields[key] = value
            _write(folder, fields)

        when = "session" if name.startswith("model") else "open"
        place = "dense.onnx: " if when == "session" else manifest
        return Attack(f"manifest-{name}", edit, when, "BundleError", (place, *message))

    def listed(name: str) -> list[dict[str, Any]]:
        return [{"name": name, "bytes": 1, "sha256": "0" * 64}]

    def raw(name: str, content: bytes, message: tuple[str, ...] = ()) -> Attack:
        def edit(folder: Path) -> None:
            (folder / "manifest.json").write_bytes(content)

        return Attack(f"manifest-{name}", edit, "open", "BundleError", (manifest, *message))

    return [
        raw("empty", b""),
        raw("not-json", b"{"),
        raw("not-utf8", b'{"schema_version": 1, "\xff": 1}'),
        raw("not-an-object", b"[1]"),
        raw("nested-deeply", b'{"schema_version": ' + b"[" * 100000),
        raw("nested-deeply-in-a-field", b'{"schema_version": 1, "a": ' + b"[" * 100000),
        raw("without-fields", b'{"schema_version": 1}', ("missing required field",)),
        edited("future", ("schema_version is 2", "update molkv"), schema_version=2),
        edited("past", ("schema_version is 0", "export again"), schema_version=0),
        edited("version-as-text", ("schema_version",), schema_version="1"),
        edited("unknown-field", ("unknown field `surprise`",), surprise=1),
        edited("unknown-model-field", ("unknown field `surprise`",), model={"surprise": 1}),
        edited("unknown-precision", ("int2",), quantization={"experts": "int2"}),
        edited("unknown-embedding-precision", ("int8",), quantization={"embedding": "int8"}),
        edited(
            "embedding-without-rows",
            ("quantization.embedding is f16, but there are no expert rows",),
            quantization={"embedding": "f16"},
            experts=[],
        ),
        edited(
            "calibration-without-its-limit",
            ("max_kl",),
            quantization={"calibration": {"tokens": 1, "kl_divergence": 0.1, "same_top1": 1.0}},
        ),
        edited("name-upwards", ("'../passwd' is not a bare name",), files=listed("../passwd")),
        edited("name-absolute", ("'/etc/passwd' is not a bare name",), files=listed("/etc/passwd")),
        edited("name-of-parent", ("'..' is not a bare name",), files=listed("..")),
        edited("name-empty", ("'' is not a bare name",), files=listed("")),
        edited("name-in-a-folder", ("'a/b' is not a bare name",), files=listed("a/b")),
        edited("files-unlisted", ("files does not list",), files=[]),
        edited("model-of-other-width", ("hidden_size is ",), model={"hidden_size": 128}),
        edited("model-of-no-heads", ("num_attention_heads",), model={"num_attention_heads": 0}),
        edited(
            "model-of-endless-context",
            ("max_position_embeddings is ", "the manifest says 1099511627776"),
            model={"max_position_embeddings": 2**40},
        ),
    ]


def _read(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return fields


def _write(folder: Path, fields: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(fields))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _manifest_as_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _extend(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def _flip_row(folder: Path) -> None:
    file = folder / "experts.molkv"
    content = bytearray(file.read_bytes())
    data_offset, stride = struct.unpack_from("<QQ", content, 16)
    content[data_offset + TOKEN_OF_BAD_ROW * stride + 5] ^= 0x10
    file.write_bytes(content)


def _with_header(content: bytearray) -> bytes:
    struct.pack_into("<I", content, PAGE - 4, google_crc32c.value(bytes(content[: PAGE - 4])))
    return bytes(content)


def _other_identity(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[IDENTITY_OFFSET : IDENTITY_OFFSET + 32] = b"\x5a" * 32
    file.write_bytes(_with_header(content))


def _without_last_row(file: Path) -> None:
    content = bytearray(file.read_bytes())
    (stride,) = struct.unpack_from("<Q", content, 24)
    for offset in (40, 56):  # vocabulary_size and row_count
        (rows,) = struct.unpack_from("<Q", content, offset)
        struct.pack_into("<Q", content, offset, rows - 1)
    file.write_bytes(_with_header(content[:-stride]))


def _as_float16(file: Path) -> None:
    """A valid blob of the same model and identity, in the other precision."""
    header = BlobHeader.unpack(file.read_bytes()[:PAGE], str(file))
    old = header.geometry
    geometry = RowGeometry.of(
        DataType.FLOAT16,
        layers=old.layers,
        experts=old.experts,
        key_heads=old.key_heads,
        key_size=old.key_size,
        value_size=old.value_size,
    )
    rows = header.vocabulary_size
    keys = np.zeros((rows, old.experts, old.key_heads * old.key_size), np.float16)
    values = np.zeros((rows, old.experts, old.value_size), np.float16)
    layer = LayerRows(keys if old.key_heads else None, values, None, None)
    _rewrite(file, header, geometry, RowLayout.of(geometry).pack([layer] * old.layers))


def _with_embeddings(file: Path) -> None:
    """A valid blob of the same experts, whose rows carry embeddings, too."""
    content = file.read_bytes()
    header = BlobHeader.unpack(content[:PAGE], str(file))
    geometry = dataclasses.replace(header.geometry, embedding_dtype=DataType.FLOAT16)
    rows = np.frombuffer(content[header.data_offset :], np.uint8).reshape(-1, header.row_stride)
    embeddings = np.zeros((len(rows), geometry.value_size), np.float16)
    layers = header.layout().sections(rows)
    _rewrite(file, header, geometry, RowLayout.of(geometry).pack(layers, embeddings))


def _rewrite(
    file: Path, header: BlobHeader, geometry: RowGeometry, rows: NDArray[np.uint8]
) -> None:
    new = BlobHeader.of(geometry, vocabulary_size=len(rows), identity=header.identity)
    with BlobWriter(file, new) as writer:
        writer.write_rows(rows)


def _quantization(folder: Path, **changes: Any) -> None:
    fields = _read(folder)
    fields["quantization"] |= changes
    _write(folder, fields)


def _fix_up(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as a careful attacker would."""
    content = (folder / name).read_bytes()
    fields = _read(folder)
    fields["files"] = [entry for entry in fields["files"] if entry["name"] != name]
    digest = hashlib.sha256(content).hexdigest()
    fields["files"].append({"name": name, "bytes": len(content), "sha256": digest})
    _write(folder, fields)


def _fixed_up(folder: Path, name: str, change: Callable[[Path], object]) -> None:
    change(folder / name)
    _fix_up(folder, name)


def _graph_metadata(folder: Path, key: str, value: str | None) -> None:
    file = folder / "dense.onnx"
    model = onnx.load(file, load_external_data=False)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties[key] = value
    kept = {name: text for name, text in properties.items() if text is not None}
    onnx.helper.set_model_props(model, kept)
    file.write_bytes(model.SerializeToString())
    _fix_up(folder, "dense.onnx")


def _tokenizer(folder: Path, more: int) -> None:
    """A tokenizer of the model's vocabulary size and `more` tokens; the manifest states that."""
    size = _read(folder)["model"]["vocab_size"]
    vocabulary = {f"word{token_id}": token_id for token_id in range(size + more)}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    _add_file(folder, "tokenizer.json", json.dumps(tokenizer).encode(), tokens=size)


def _add_file(folder: Path, name: str, content: bytes, *, tokens: int) -> None:
    (folder / name).write_bytes(content)
    _fix_up(folder, name)
    fields = _read(folder)
    fields["tokenizer"] = {"file": name, "vocabulary_size": tokens}
    _write(folder, fields)


def main() -> None:
    """Writes every folder beside the others."""
    if len(sys.argv) != 3:
        sys.exit("usage: python tests/attacks/bundle_folders.py BUNDLE OUT_DIR")
    bundle, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    expected = {}
    for attack in attacks():
        shutil.copytree(bundle, out / attack.name)
        attack.edit(out / attack.name)
        expected[attack.name] = {
            "when": attack.when,
            "error": attack.error,
            "message": attack.message,
        }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
