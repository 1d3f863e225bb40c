"""The README.md that training writes beside a checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molkv_model.config import ModelConfig

__all__ = ["write_model_card"]


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``README.md``.

    Args:
        folder: the checkpoint.
        facts: config, files (name to sha256), bytes, tokens, training_tokens, validation_loss, parameters
            and settings of the run.
    """
    config: ModelConfig = facts["config"]
    loss = facts["validation_loss"]
    lines = [
        f"# A {config.architecture} language model trained with molkv",
        "",
        "| | |",
        "| --- | --- |",
        f"| architecture | {config.architecture}, {config.num_hidden_layers} layers, "
        f"d {config.hidden_size}, vocabulary {config.vocab_size:,} |",
        f"| parameters | {facts['parameters']:,} before the experts become a table |",
        f"| tokens seen | {facts['tokens']:,} ({facts['training_tokens']:,} distinct positions) |",
        f"| validation loss | {loss:.4f} nats a token (perplexity {math.exp(loss):.1f}) |",
    ]
    lines += [f"| {name} | {value} |" for name, value in facts["settings"].items()]
    digests = facts["files"]
    together = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    lines += [
        "",
        f"Text: {len(digests)} files, {facts['bytes']:,} bytes, sha256 over their sha256s "
        f"`{together}`.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
