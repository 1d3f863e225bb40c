"""The README.md that training writes beside a checkpoint."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from molkv_model.config import ModelConfig

__all__ = ["write_model_card"]


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``README.md``.

    Args:
        folder: the checkpoint.
        facts: config, sha256 (of each text file), bytes, tokens, training_tokens,
            validation_loss, parameters and settings of the run.
    """
    config: ModelConfig = facts["config"]
    shape = (
        f"{config.architecture}, {config.num_hidden_layers} layers, d {config.hidden_size}, "
        f"vocabulary {config.vocab_size:,}"
    )
    loss = facts["validation_loss"]
    perplexity = math.exp(min(loss, 700.0))
    lines = [
        f"# A {config.architecture} language model trained with molkv",
        "",
        "| | |",
        "| --- | --- |",
        f"| architecture | {shape} |",
        f"| parameters | {facts['parameters']:,} before the experts become a table |",
        f"| tokens seen | {facts['tokens']:,} ({facts['training_tokens']:,} distinct positions) |",
        f"| validation loss | {loss:.4f} nats a token (perplexity {perplexity:.1f}) |",
    ]
    lines += [f"| {name} | {value} |" for name, value in facts["settings"].items()]
    digests = facts["sha256"]
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    size = f"{len(digests)} files, {facts['bytes']:,} bytes"
    lines += ["", f"Text: {size}, sha256 over their sha256s `{together}`."]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
