"""What a dense graph states about itself, compared with the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import LimitsEntry, Manifest

__all__ = ["check_metadata", "require_limits"]


def require_limits(manifest: Manifest, backend: str) -> LimitsEntry:
    """What a graph was compiled for, for a backend whose graphs always are.

    Raises:
        BundleError: the manifest does not say.
    """
    limits = manifest.backends[backend].limits
    if limits is None:
        raise BundleError(
            f"manifest.json: backends.{backend}.limits is missing", fix="export again"
        )
    return limits


def check_metadata(
    file: Path, metadata: Mapping[str, str], manifest: Manifest, *, backend: str
) -> None:
    """Check that a graph was lowered from the checkpoint that the manifest describes.

    Args:
        file: the graph's.
        metadata: the graph's ``molkv.*`` properties.
        manifest: the bundle's.
        backend: whose graph it is.

    Raises:
        BundleError: it was not.
    """
    entry = manifest.backends[backend]
    config = _record(metadata.get("molkv.config"))
    facts: dict[str, tuple[object, object]] = {
        "identity": (metadata.get("molkv.identity"), manifest.identity),
        "experts": (metadata.get("molkv.experts"), manifest.quantization.experts or "none"),
        "embedding": (metadata.get("molkv.embedding"), _embedding(manifest)),
        "dense": (metadata.get("molkv.dense"), entry.dense),
        "cache": (metadata.get("molkv.cache"), entry.cache),
    }
    if entry.limits is not None:
        stated = _record(metadata.get("molkv.limits"))
        for name, value in msgspec.to_builtins(entry.limits).items():
            facts[f"limits.{name}"] = (stated.get(name), value)
    for name, value in msgspec.to_builtins(manifest.model).items():
        facts[name] = (config.get(name), value)
    for name, (found, expected) in facts.items():
        if found != expected:
            raise BundleError(
                f"{file}: {name} is {found}, the manifest says {expected}",
                fix="graph and manifest must come from one export",
            )


def _embedding(manifest: Manifest) -> str | None:
    """What a graph states that takes its embeddings from the rows; others state nothing."""
    return None if manifest.quantization.embedding is None else "storage"


def _record(text: str | None) -> dict[str, object]:
    """A JSON object; nothing where it is none."""
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
