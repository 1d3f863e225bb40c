"""`molkv inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from molkv_export.cli.console import facts_table, output_console, print_json, size
from molkv_export.cli.options import JsonOption
from molkv_runtime.blob_header import HEADER_SIZE, BlobHeader
from molkv_runtime.errors import BlobFormatError
from molkv_runtime.manifest import MANIFEST_FILE, Manifest, read_manifest

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|BLOB", help="A bundle or a .molkv file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle or an expert blob holds, without loading it.

    Example: molkv inspect bundle
    """
    if path.is_file():
        header = _read_header(path)
        if as_json:
            print_json(header.to_json())
        else:
            output_console().print(facts_table(str(path), _flat(header.to_json())))
        return
    manifest = read_manifest(path)
    if as_json:
        print_json(json.loads((path / MANIFEST_FILE).read_bytes()))
    else:
        output_console().print(facts_table(str(path), _summary(manifest)))


def _read_header(file: Path) -> BlobHeader:
    try:
        with file.open("rb") as content:
            return BlobHeader.unpack(content.read(HEADER_SIZE), str(file))
    except OSError as error:
        raise BlobFormatError(f"{file}: cannot be read: {error.strerror}") from None


def _summary(manifest: Manifest) -> dict[str, str]:
    model, parity = manifest.model, manifest.parity
    facts = {
        "architecture": f"{model.architecture}, {model.num_hidden_layers} layers, "
        f"d {model.hidden_size}, vocabulary {model.vocab_size:,}",
        "context": f"{model.max_position_embeddings:,} tokens",
    }
    if manifest.experts:
        facts["experts"] = (
            f"{model.num_experts} a layer, {manifest.quantization.experts} rows, "
            f"window of {model.expert_window} tokens"
        )
        if (chosen := manifest.quantization.calibration) is not None:
            facts["experts chosen"] = (
                f"{chosen.kl_divergence:.2g} nats from the trained ones on {chosen.tokens:,} "
                f"tokens, limit {chosen.max_kl:g}"
            )
    facts["input embedding"] = _embedding(manifest)
    facts["dense graph"] = manifest.dense_precisions
    if manifest.tokenizer is None:
        facts["tokenizer"] = "none: ids in, ids out"
    else:
        facts["tokenizer"] = f"{manifest.tokenizer.vocabulary_size:,} tokens"
    facts["identity"] = manifest.identity
    facts["parity"] = "not verified"
    if parity is not None:
        passed = sum(rung.passed for rung in parity.rungs)
        verdict = "passed" if parity.passed else "FAILED"
        facts["parity"] = f"{verdict}, {passed} of {len(parity.rungs)} rungs"
    facts |= {entry.name: size(entry.bytes) for entry in manifest.files}
    return facts


def _embedding(manifest: Manifest) -> str:
    stored = manifest.quantization.embedding
    return "in the dense graph" if stored is None else f"{stored}, in the expert rows"


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
