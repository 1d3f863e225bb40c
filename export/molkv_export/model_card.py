"""The README.md of a bundle, generated from its manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from molkv_export.plan import ExportPlan
    from molkv_runtime.manifest import Manifest

__all__ = ["CARD_FILE", "model_card"]

CARD_FILE = "README.md"


def model_card(manifest: Manifest, plan: ExportPlan) -> str:
    """The card's Markdown text."""
    model, precision = manifest.model, manifest.quantization
    lines = [
        f"# A {model.architecture} bundle",
        "",
        "Made by `molkv export`. Run it with `molkv run FOLDER --prompt TEXT`; prove it with",
        "`molkv verify FOLDER`.",
        "",
        "| | |",
        "| --- | --- |",
        f"| architecture | {model.architecture}, {model.num_hidden_layers} layers, "
        f"d {model.hidden_size}, vocabulary {model.vocab_size:,}, "
        f"context {model.max_position_embeddings:,} |",
        f"| dense graph | {plan.dense_parameters:,} parameters, {manifest.dense_precisions} |",
    ]
    if precision.experts is not None:
        lines += [
            f"| experts | {model.num_experts} a layer, {plan.expert_parameters:,} values in the "
            f"table, {precision.experts} |",
            f"| expert window | {model.expert_window} tokens, {plan.window_bytes:,} bytes |",
            f"| storage read for each token | one row of {plan.bytes_per_token:,} bytes |",
        ]
    if precision.embedding is not None:
        lines.append(f"| input embedding | {precision.embedding}, a part of every row |")
    lines += [
        f"| backends | {', '.join(sorted(manifest.backends))} |",
        f"| identity of the weights | `{manifest.identity}` |",
        "",
        "| file | bytes |",
        "| --- | --- |",
    ]
    lines += [f"| `{entry.name}` | {entry.bytes:,} |" for entry in manifest.files]
    return "\n".join(lines) + "\n"
