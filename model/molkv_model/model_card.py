"""The README.md that training writes beside a checkpoint."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from molkv_model.weight_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from molkv_model.config import ModelConfig

__all__ = ["CardText", "ModelCard", "ScoredModel", "write_model_card"]

CARD_FILE = "README.md"
_COLUMNS = 4


@dataclass(frozen=True)
class ScoredModel:
    """A saved checkpoint and how it does on the held-out text.

    Attributes:
        config: its hyper-parameters.
        parameters: its number, experts included.
        validation_loss: of the weights as saved, nats a token.
        history: validation loss by step while it was trained, as far as it is known.
    """

    config: ModelConfig
    parameters: int
    validation_loss: float
    history: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardText:
    """What a model was trained on.

    Attributes:
        sha256: of each file, in order.
        size: bytes of all files.
        training: token positions trained on.
        validation: token positions held out.
    """

    sha256: Sequence[str]
    size: int
    training: int
    validation: int


@dataclass(frozen=True)
class ModelCard:
    """What a model card states.

    Attributes:
        model: the checkpoint itself.
        text: what it was trained on.
        tokens: seen in training, repetitions counted.
        steps: optimizer steps.
        dtype: of the saved weights.
        settings: of the run, by name.
        command: the command line; empty where training was not started by one.
        compared: other checkpoints, scored on the same held-out text.
    """

    model: ScoredModel
    text: CardText
    tokens: int
    steps: int
    dtype: str
    settings: Mapping[str, Any]
    command: str = ""
    compared: Sequence[ScoredModel] = ()

    def to_markdown(self) -> str:
        """The card's text."""
        config, text, loss = self.model.config, self.text, self.model.validation_loss
        together = hashlib.sha256("".join(text.sha256).encode()).hexdigest()
        epochs = self.tokens / text.training
        lines = [f"# A {config.architecture} language model trained with molkv", ""]
        if self.command:
            lines += ["```sh", self.command, "```", ""]
        lines += [
            "| | |",
            "| --- | --- |",
            f"| architecture | {config.architecture}, {config.num_hidden_layers} layers, "
            f"d {config.hidden_size}, vocabulary {config.vocab_size:,} |",
            f"| parameters | {self.model.parameters:,} before the experts become a table |",
            f"| weights saved as | {self.dtype} |",
            f"| validation loss of the saved weights | {loss:.4f} nats a token "
            f"(perplexity {math.exp(min(loss, 700.0)):.1f}) |",
            f"| tokens seen | {self.tokens:,}: each training position about {epochs:.1f} times |",
            f"| text | {len(text.sha256)} files, {text.size:,} bytes: {text.training:,} training "
            f"positions, {text.validation:,} held out |",
            f"| sha256 over the files' sha256s | `{together}` |",
        ]
        lines += [f"| {name} | {value} |" for name, value in self.settings.items()]
        if self.compared:
            lines += ["", *self._comparison()]
        return "\n".join(lines) + "\n"

    def _comparison(self) -> list[str]:
        """A row for each model: the loss as saved, and on the way there."""
        models = [self.model, *self.compared]
        steps = _spread([step for step in self.model.history if step < self.steps])
        per_step = self.tokens / self.steps
        columns = [f"after {step * per_step / 1e6:.2f} M tokens" for step in steps]
        header = ["model", "parameters", *columns, "as saved"]
        lines = [
            "Validation loss on the same held-out text, in nats a token:",
            "",
            f"| {' | '.join(header)} |",
            f"| --- |{' ---: |' * (len(header) - 1)}",
        ]
        for model in models:
            known = [
                f"{model.history[step]:.4f}" if step in model.history else "" for step in steps
            ]
            cells = [model.config.architecture, f"{model.parameters:,}", *known]
            lines.append(f"| {' | '.join([*cells, f'{model.validation_loss:.4f}'])} |")
        return lines


def write_model_card(folder: Path, card: ModelCard) -> None:
    """Write ``README.md`` into a checkpoint folder."""
    content = card.to_markdown()
    write_whole(folder / CARD_FILE, lambda file: file.write_text(content, encoding="utf-8"))


def _spread(steps: Sequence[int]) -> list[int]:
    """A few of them, evenly apart, the first included."""
    if len(steps) <= _COLUMNS:
        return list(steps)
    return [steps[number * (len(steps) - 1) // _COLUMNS] for number in range(_COLUMNS)]
