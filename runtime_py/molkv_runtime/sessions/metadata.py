"""What a dense graph states about itself, compared with the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import Manifest

__all__ = ["check_metadata"]


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
    try:
        config = json.loads(metadata.get("molkv.config", "{}"))
    except ValueError:
        config = {}
    facts = {
        "identity": (metadata.get("molkv.identity"), manifest.identity),
        "experts": (metadata.get("molkv.experts"), manifest.quantization.experts or "none"),
        # An ONNX graph has float32 only, and does not say so.
        "dense": (metadata.get("molkv.dense", "fp32"), manifest.backends[backend].dense),
    }
    for name, value in msgspec.to_builtins(manifest.model).items():
        facts[name] = (config.get(name), value)
    for name, (found, expected) in facts.items():
        if found != expected:
            raise BundleError(
                f"{file}: {name} is {found}, the manifest says {expected}",
                fix="graph and manifest must come from one export",
            )
