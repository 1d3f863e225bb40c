"""What to train, and what a run reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from molkv_model.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

    from molkv_model.config import ModelConfig

__all__ = [
    "DECISIVE",
    "BatchOrder",
    "Precision",
    "TrainingConfig",
    "TrainingProgress",
    "TrainingResult",
]

Precision = Literal["auto", "float32", "bfloat16"]
SaveDtype = Literal["float32", "float16", "bfloat16"]
BatchOrder = Literal["random", "once"]


@dataclass(frozen=True)
class TrainingConfig:
    """What to train and how long.

    Attributes:
        model: the hyper-parameters.
        text: UTF-8 files; none where `corpus` is given.
        out: the checkpoint folder to write.
        tokens: training tokens in all, over all ranks.
        batch_tokens: tokens a step, over all ranks.
        sequence_length: tokens a sequence.
        learning_rate: the schedule's peak.
        warmup_steps: steps until the peak.
        seed: of weights and batches.
        tokenizer: a ``tokenizer.json`` to use; None trains one on the text.
        corpus: token ids that `Corpus.save` wrote, made with `tokenizer`, instead of `text`.
        batches: ``random`` draws the places of a step's sequences anew, ``once`` reads the training
            text in an order drawn once, no token twice.
        precision: of the matrix products; ``auto`` is bfloat16 on CUDA, float32 elsewhere.
        save_dtype: of the checkpoint's tensors.
        evaluate_every: steps between validations, each after a save of the run's state.
        validation_sequences: how many held-out sequences are scored, evenly spaced.
        resume: continue from the state that an interrupted run left in `out`.
        force: replace the run or checkpoint that `out` holds.
        compare: checkpoints to score on the same held-out text, for the model card.
        command: the command line that started the run, for the model card.

    Raises:
        TrainingError: a field is out of range.
    """

    model: ModelConfig
    text: tuple[Path, ...]
    out: Path
    tokens: int = 4_000_000
    batch_tokens: int = 2048
    sequence_length: int = 256
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    seed: int = 0
    tokenizer: Path | None = None
    corpus: Path | None = None
    batches: BatchOrder = "random"
    precision: Precision = "auto"
    save_dtype: SaveDtype = "float16"
    evaluate_every: int = 250
    validation_sequences: int = 64
    resume: bool = False
    force: bool = False
    compare: tuple[Path, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        for name in (
            "tokens",
            "batch_tokens",
            "sequence_length",
            "learning_rate",
            "evaluate_every",
            "validation_sequences",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is {getattr(self, name)}", fix="it must be positive")
        if self.warmup_steps < 0:
            raise TrainingError(f"warmup_steps is {self.warmup_steps}", fix="0 or more")
        if not 0 <= self.seed < 2**31:
            raise TrainingError(f"seed is {self.seed}", fix="0 or more, less than 2^31")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}", fix=f"one of {', '.join(choices)}"
                )
        if self.sequence_length > self.model.max_position_embeddings:
            raise TrainingError(
                f"sequence_length {self.sequence_length} exceeds the context "
                f"{self.model.max_position_embeddings}",
                fix="choose a shorter sequence_length or a larger max_position_embeddings",
            )
        if self.batch_tokens % self.sequence_length:
            raise TrainingError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_length "
                f"{self.sequence_length}",
                fix="a step is made of whole sequences",
            )
        if self.resume and self.force:
            raise TrainingError(
                "resume and force are both on", fix="either continue a run or replace it"
            )
        if self.corpus is None and not self.text:
            raise TrainingError("no text was given", fix="name at least one UTF-8 file")
        if self.corpus is not None and (self.text or self.tokenizer is None):
            raise TrainingError(
                f"corpus is {self.corpus}, with text or without tokenizer",
                fix="give token ids with the tokenizer that made them, and no text",
            )

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return max(1, self.tokens // self.batch_tokens)


_CHOICES = {
    "precision": get_args(Precision),
    "save_dtype": get_args(SaveDtype),
    "batches": get_args(BatchOrder),
}

DECISIVE = (
    "tokens",
    "batch_tokens",
    "sequence_length",
    "learning_rate",
    "warmup_steps",
    "seed",
    "precision",
    "batches",
    "validation_sequences",
)
"""The fields that, with model, text and tokenizer, decide the numbers of a run."""


@dataclass(frozen=True)
class TrainingProgress:
    """One line of ``metrics.jsonl``.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: mean training loss since the last line over all ranks, nats a token.
        validation_loss: nats a token, on lines that end an evaluation.
        tokens_per_s: since the last line.
        seconds_left: estimated.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        out: the checkpoint folder.
        tokens: tokens seen.
        validation_loss: of the saved weights on the held-out split, nats a token.
        parameters: of the model, experts included.
    """

    out: Path
    tokens: int
    validation_loss: float
    parameters: int
